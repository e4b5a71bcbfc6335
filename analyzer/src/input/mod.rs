//! What is read: one file per format.

pub(crate) mod client;
pub(crate) mod connections;
mod fleet;
pub(crate) mod kept_log;
mod packed;
pub(crate) mod recording;
pub(crate) mod text;
pub(crate) mod time;
