//! Leaks: what grows while it should not, from whatever was watched over time.

pub(crate) mod checkpoint;
pub(crate) mod conclusion;
pub(crate) mod held;
pub(crate) mod related;
pub(crate) mod report;
pub(crate) mod source;
pub(crate) mod stability;
pub(crate) mod trend;
