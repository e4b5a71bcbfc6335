//! Failures that a user can meet, and the exit code of each.

use std::fmt::Display;
use std::io;

use thiserror::Error;

/// An expected failure. Anything else that reaches `main` is a bug and exits 1.
#[derive(Debug, Error)]
pub(crate) enum LabError {
    /// Wrong usage or bad input.
    #[error("{0}")]
    Usage(String),
    /// Nothing happened that could be judged.
    #[error("{0}")]
    Inconclusive(String),
    /// This host lacks something: privileges, a program, a kernel feature.
    #[error("{0}")]
    Host(String),
    /// A threshold was crossed.
    #[error("{0}")]
    Threshold(String),
    /// Stopped by a signal, after everything was written.
    #[error("stopped by signal {0}")]
    Signal(i32),
    /// A sibling program ended with this code, and has said why itself.
    #[error("{program} ended with exit code {code}")]
    Sibling { program: String, code: i32 },
}

impl LabError {
    pub(crate) fn usage(text: impl Display) -> anyhow::Error {
        LabError::Usage(text.to_string()).into()
    }

    pub(crate) fn host(text: impl Display) -> anyhow::Error {
        LabError::Host(text.to_string()).into()
    }

    fn exit_code(&self) -> u8 {
        match self {
            LabError::Usage(_) => 2,
            LabError::Inconclusive(_) => 4,
            LabError::Host(_) => 96,
            LabError::Threshold(_) => 99,
            LabError::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            LabError::Sibling { code, .. } => u8::try_from(*code).unwrap_or(1),
        }
    }
}

/// The exit code for `error`, by the table in the design.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<LabError>().map_or(1, LabError::exit_code)
}

/// Says what could not be opened or written, and what to do about it.
pub(crate) fn file_error(path: &std::path::Path, doing: &str, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; create its directory first, or name another",
        io::ErrorKind::PermissionDenied => "; choose a place this user may write to",
        io::ErrorKind::StorageFull => "; free some space, or name another place",
        _ => "",
    };
    LabError::usage(format!("cannot {doing} {}: {error}{advice}", path.display()))
}
