//! Eight tabs of one user open at once, each makes a manager, and only the last one's can be found again.

use std::time::Duration;

use super::{Leaks, Load, ONE_USER};

pub(super) const LOAD: Load = Load {
    bug: "tabs",
    fixed: "",
    connections: 8,
    ramp: "100ms",
    stay: Duration::from_millis(3000),
};

pub(super) const SCENARIO: Leaks = Leaks {
    name: "tabs",
    about: "8 tabs open at once; their managers share a key",
    loads: &[LOAD],
    preset: ONE_USER,
};
