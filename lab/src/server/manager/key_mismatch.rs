//! Registered under one key, looked up under another.

use super::{CORRECT, Policy};

pub(super) const BUG: Policy = Policy {
    name: "key-mismatch",
    about: "managers are registered as thread_session and cleaned up as thread_websocket_factory",
    key: |visit| format!("{}:thread_session_{}", visit.user, visit.thread),
    cleanup_key: |visit| format!("{}:thread_websocket_factory_{}", visit.user, visit.thread),
    emergency_key: |visit| format!("{}:thread_websocket_factory_{}", visit.user, visit.thread),
    ..CORRECT
};
