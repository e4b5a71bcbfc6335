//! Writes a capture while connections come and go.

pub(crate) mod ask;
pub(crate) mod counters;
pub(crate) mod output;
mod reasons;
pub(crate) mod recorder;
pub(crate) mod rows;
pub(crate) mod session;
