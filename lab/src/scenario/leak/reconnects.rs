//! Fifteen cycles of connect and leave, each with the key of the one before, whose cleanup has not ended.

use std::time::Duration;

use super::{Leaks, Load, ONE_USER};

pub(super) const LOAD: Load = Load {
    bug: "reconnects",
    fixed: "",
    connections: 15,
    ramp: "4/s",
    stay: Duration::from_millis(200),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "reconnects",
    about: "15 cycles of 0.2 s; the key is used again before its cleanup ends",
    loads: &[LOAD],
    preset: ONE_USER,
};
