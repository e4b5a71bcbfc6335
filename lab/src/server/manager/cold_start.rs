//! The background cleanup starts late; what ends before it runs is forgotten.

use std::time::Duration;

use super::{CORRECT, Cleanup, Policy};

pub(super) const BUG: Policy = Policy {
    name: "cold-start",
    about: "the background cleanup does not run yet when the first connections end",
    cleanup: Cleanup::Background { starts_after: Duration::from_secs(60) },
    ..CORRECT
};
