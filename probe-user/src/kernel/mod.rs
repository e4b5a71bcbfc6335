//! From this kernel's BTF to attached programs.

pub mod attach;
pub mod capabilities;
mod container;
pub mod cost;
pub mod features;
pub mod hold;
pub mod hooks;
pub mod log;
pub mod offsets;
pub mod pin;
pub mod sys;
pub mod walk;

use std::fmt;

pub use crate::truth::ebpf::open;
pub use attach::Options;
pub use pin::{PIN_ROOT, purge};

/// Why this host can't run the programs: exit code 96.
#[derive(Debug)]
pub struct Unavailable {
    /// What could not be done, e.g. "load the kernel programs".
    pub what: String,
    /// The kernel's reason.
    pub why: String,
    /// What the user can do about it.
    pub cure: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}; {}", self.what, self.why, self.cure)
    }
}

impl std::error::Error for Unavailable {}
