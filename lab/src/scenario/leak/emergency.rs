//! A hundred connections a second, which an ordinary cleanup of 300 ms does not follow.

use std::time::Duration;

use super::{Leaks, Load};

const LOAD: Load = Load {
    bug: "emergency",
    fixed: "late-cleanup",
    connections: 300,
    ramp: "100/s",
    stay: Duration::from_millis(10),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "emergency",
    about: "100 connections a second; the emergency cleanup at 16 managers finds none",
    loads: &[LOAD],
    preset: "emergency",
};
