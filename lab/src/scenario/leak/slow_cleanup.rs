//! A connection each 500 ms for ten seconds, against a cleanup that runs every two minutes.

use std::time::Duration;

use super::{Leaks, Load, ONE_USER};

pub(super) const LOAD: Load = Load {
    bug: "slow-cleanup",
    fixed: "",
    connections: 20,
    ramp: "2/s",
    stay: Duration::from_millis(300),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "slow-cleanup",
    about: "one connection each 500 ms for 10 s; the cleanup's cycle is 120 s",
    loads: &[LOAD],
    preset: ONE_USER,
};
