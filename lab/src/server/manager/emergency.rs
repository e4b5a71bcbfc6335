//! What an emergency cleanup is for: managers of a user who comes and goes faster than the ordinary
//! cleanup follows.

use std::time::Duration;

use super::{CORRECT, Cleanup, Policy};

/// A user of a hundred connections a second has more managers than a user may have.
const DELAY: Duration = Duration::from_millis(300);

/// Not a bug: what the user `emergency` meets where it has none.
pub(super) const LATE: Policy = Policy {
    name: "late-cleanup",
    about: "no bug: managers are cleaned up after 300 ms, and from 16 on in an emergency",
    cleanup: Cleanup::After(DELAY),
    ..CORRECT
};

pub(super) const BUG: Policy = Policy {
    name: "emergency",
    about: "as late-cleanup, and the emergency cleanup looks under another key",
    emergency_key: |visit| format!("{}:thread_websocket_factory_{}", visit.user, visit.thread),
    ..LATE
};
