//! What clients saw, summed up, beside what the kernel saw of them.

pub(crate) mod join;
pub(crate) mod kernel;
pub(crate) mod rates;
pub(crate) mod report;
pub(crate) mod spread;
pub(crate) mod stage;
