//! What is read: one file per format.

pub(crate) mod lab;
pub(crate) mod recording;
