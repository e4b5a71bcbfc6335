//! Failures that are expected to happen, each with what to do about it. Whatever else reaches
//! `main` is a bug, and says so.

use std::path::PathBuf;

use crate::exit::Exit;

/// An expected failure. The text has what failed, where, what was expected, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what}\n  {next}")]
    Input { what: String, next: String },

    #[error("this host cannot {what}: {why}\n  {cure}")]
    Unsupported { what: String, why: String, cure: String },

    #[error(
        "the counts are not exact: {why}\n  leave --require-exact out to see them all the same"
    )]
    NotExact { why: String },

    #[error(
        "an agent is already running, {who}\n  stop it with `probe stop`, or use it: count, connections, watch and record ask it by themselves"
    )]
    AgentRuns { who: String },

    #[error("no agent is running: nobody listens on {socket}\n  start one with `probe serve`")]
    NoAgent { socket: PathBuf },

    /// What cannot be written; the text names the file and what is kept.
    #[error("{message}")]
    Output { message: String },
}

impl Error {
    pub(crate) fn input(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Input { what: what.into(), next: next.into() }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Input { .. }
            | Self::AgentRuns { .. }
            | Self::NoAgent { .. }
            | Self::Output { .. } => Exit::Usage,
            Self::Unsupported { .. } | Self::NotExact { .. } => Exit::Unsupported,
        }
    }
}
