//! Why a capture can't be written.

use std::io;
use std::path::PathBuf;

use arrow_schema::ArrowError;

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(
        "{} is not empty: expected a new or empty directory for the capture; choose another, or remove it",
        .0.display()
    )]
    NotEmpty(PathBuf),
    #[error("cannot create {}: {error}", .path.display())]
    Create { path: PathBuf, error: io::Error },
    /// The file holds every batch before this one, and nothing of this one.
    #[error(
        "cannot write {}: {error}; the {kept_rows} rows written before are kept, {lost_rows} are lost",
        .path.display()
    )]
    Write { path: PathBuf, kept_rows: u64, lost_rows: u64, error: io::Error },
    /// Only the open file is left of it, which nobody else can read.
    #[error(
        "{} was removed while it was being written, with the {rows} rows in it",
        .path.display()
    )]
    Removed { path: PathBuf, rows: u64 },
    /// Nothing can be appended to it.
    #[error("{} is not what was written before: another file, or on another file system", .0.display())]
    Replaced(PathBuf),
    /// Rows that the format does not take: a bug in the caller.
    #[error("cannot encode rows for {}: {error}", .path.display())]
    Encode { path: PathBuf, error: ArrowError },
}

impl WriteError {
    /// No space left, or a quota reached.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let (WriteError::Create { error, .. } | WriteError::Write { error, .. }) = self else {
            return false;
        };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Rows of the message that could not be written.
    #[must_use]
    pub fn lost_rows(&self) -> u64 {
        if let WriteError::Write { lost_rows, .. } = self { *lost_rows } else { 0 }
    }
}
