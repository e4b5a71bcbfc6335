//! Every manager is registered under one key, and looked up under another.

use std::time::Duration;

use super::{Leaks, Load, ONE_USER};

pub(super) const LOAD: Load = Load {
    bug: "key-mismatch",
    fixed: "",
    connections: 12,
    ramp: "4/s",
    stay: Duration::from_millis(500),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "key-mismatch",
    about: "registered as thread_session, cleaned up as thread_websocket_factory",
    loads: &[LOAD],
    preset: ONE_USER,
};
