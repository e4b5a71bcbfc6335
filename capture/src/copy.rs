//! Makes a directory of a capture that is written on another host, message by message, as
//! [`CaptureWriter::stream`](crate::CaptureWriter::stream) hands them on.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::WriteError;
use crate::meta::{META_FILE, Meta};
use crate::schema::Table;
use crate::writer::{empty_dir, write_meta};

/// An open copy. What it was handed survives the death of this process.
#[derive(Debug)]
pub struct Copy {
    dir: PathBuf,
    files: HashMap<String, (PathBuf, File)>,
    command_line: Vec<String>,
}

impl Copy {
    /// Makes the directory and an empty file per table. `command_line` goes into the copy's
    /// `meta.json`: what the other host was started with is not what asked for the capture.
    ///
    /// # Errors
    /// As [`CaptureWriter::create`](crate::CaptureWriter::create).
    pub fn create(dir: &Path, command_line: Vec<String>) -> Result<Self, WriteError> {
        empty_dir(dir)?;
        let mut files = HashMap::new();
        for name in Table::ALL.map(Table::file_name) {
            let path = dir.join(&name);
            let file = OpenOptions::new()
                .create_new(true)
                .append(true)
                .open(&path)
                .map_err(|error| WriteError::Create { path: path.clone(), error })?;
            files.insert(name, (path, file));
        }
        Ok(Self { dir: dir.to_path_buf(), files, command_line })
    }

    /// Appends to a table's file, or replaces `meta.json`. `false` for other names, of which nothing
    /// is written: they come from elsewhere, and a newer version may have more tables.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn take(&mut self, name: &str, bytes: &[u8]) -> Result<bool, WriteError> {
        let foreign = |error| WriteError::Create { path: self.dir.join(META_FILE), error };
        if name == META_FILE {
            let mut meta: Meta =
                serde_json::from_slice(bytes).map_err(|error| foreign(error.into()))?;
            meta.command_line.clone_from(&self.command_line);
            return write_meta(&self.dir, &meta).map(|()| true);
        }
        let Some((path, file)) = self.files.get_mut(name) else { return Ok(false) };
        file.write_all(bytes)
            .map(|()| true)
            .map_err(|error| WriteError::Create { path: path.clone(), error })
    }

    /// Everything is on disk when this returns.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(self) -> Result<(), WriteError> {
        for (path, file) in self.files.into_values() {
            file.sync_all().map_err(|error| WriteError::Create { path, error })?;
        }
        Ok(())
    }
}
