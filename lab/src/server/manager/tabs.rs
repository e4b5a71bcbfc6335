//! Tabs of one user share a key. Opened at once, each finds no manager, makes one, and enters it in
//! the place of the one before: only the last can be found again.

use std::time::Duration;

use super::{CORRECT, Policy};

pub(super) const BUG: Policy = Policy {
    name: "tabs",
    about: "tabs opened at once enter their managers under one key",
    key: |visit| format!("{}:session", visit.user),
    cleanup_key: |visit| format!("{}:session", visit.user),
    creation_takes: Duration::from_millis(300),
    ..CORRECT
};
