//! The capture format: [`schema`], [`meta`], a [`writer`] that never buffers more than a batch, and a
//! [`reader`] that reads a capture cut off by a crash up to its last whole batch.

#![forbid(unsafe_code)]

pub mod cell;
pub mod clock;
mod compat;
pub mod copy;
mod error;
pub mod meta;
pub mod outcome;
pub mod reader;
pub mod schema;
pub mod writer;

pub use error::WriteError;
pub use reader::{Capture, ReadError};
pub use writer::CaptureWriter;
