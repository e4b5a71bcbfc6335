//! A client that reconnects brings its key along. If the cleanup of its last manager has not ended by
//! then, it finds another manager under the key, and leaves both alone.

use std::time::Duration;

use super::{CORRECT, Cleanup, Policy};

pub(super) const BUG: Policy = Policy {
    name: "reconnects",
    about: "a key is used again before the cleanup of its last manager has ended",
    key: |visit| format!("{}:session", visit.user),
    cleanup_key: |visit| format!("{}:session", visit.user),
    cleanup: Cleanup::After(Duration::from_millis(1500)),
    ..CORRECT
};
