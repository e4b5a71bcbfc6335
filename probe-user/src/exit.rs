//! The exit codes, the same for every command of the project.

use std::process::ExitCode;

/// How a command ended, as far as a caller needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, thresholds held.
    Done = 0,
    /// An unexpected failure: a bug.
    Bug = 1,
    /// Wrong usage or bad input.
    Usage = 2,
    /// Nothing to judge, or loss where the judgement lies.
    Inconclusive = 4,
    /// This host cannot do it: capability, BTF, kernel.
    Unsupported = 96,
    /// A threshold was crossed.
    Threshold = 99,
    /// Stopped by SIGINT, after what was recorded is on disk.
    Interrupted = 130,
    /// Stopped by SIGTERM, likewise.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
