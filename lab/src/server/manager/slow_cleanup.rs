//! Managers come faster than the cleanup's cycle takes them away.

use std::time::Duration;

use super::{CORRECT, Cleanup, Policy};

pub(super) const BUG: Policy = Policy {
    name: "slow-cleanup",
    about: "managers are only cleaned up once in a cycle of 120 s",
    cleanup: Cleanup::Cycle(Duration::from_secs(120)),
    ..CORRECT
};
