//! What is read: one file per format.

pub(crate) mod archive;
#[cfg(feature = "cloud")]
mod bucket;
pub(crate) mod client;
pub(crate) mod connections;
pub(crate) mod fleet;
pub(crate) mod kept_log;
mod packed;
pub(crate) mod recording;
mod shared_file;
pub(crate) mod text;
pub(crate) mod time;
