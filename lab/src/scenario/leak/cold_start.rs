//! Twenty-five connections come and go in under two seconds, before the background cleanup runs.

use std::time::Duration;

use super::{Leaks, Load, ONE_USER};

pub(super) const LOAD: Load = Load {
    bug: "cold-start",
    fixed: "",
    connections: 25,
    ramp: "15/s",
    stay: Duration::from_millis(500),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "cold-start",
    about: "25 connections in under 2 s, before the background cleanup runs",
    loads: &[LOAD],
    preset: ONE_USER,
};
