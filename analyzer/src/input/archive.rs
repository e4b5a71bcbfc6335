//! A capture in a tar archive, as the agent's page saves it: plain, gzip or zstd.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use capture::Capture;
use capture::meta::META_FILE;
use capture::schema::Table;
use tar::Archive;
use tempfile::TempDir;

use crate::error::InputError;
use crate::input::text;

/// Unpacked for as long as it is read.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) capture: Capture,
    /// As the user named it.
    pub(crate) name: String,
    /// Removed with this.
    _dir: TempDir,
}

/// Unpacks the capture's own files, by names of our own: paths of an archive, its links and whatever else
/// lies in it are passed over. A packed one is bounded as every packed input is.
pub(crate) fn open(path: &Path) -> Result<Unpacked, InputError> {
    let unreadable = |error| InputError::Read { path: path.to_path_buf(), error };
    let dir = tempfile::tempdir()
        .map_err(|error| InputError::Write { path: std::env::temp_dir(), error })?;
    let mut archive = Archive::new(text::open(path)?);
    let mut of_capture: Option<PathBuf> = None;
    // The first block tells whether it is an archive at all, and a reader that is cut short tells where.
    for (index, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        let mut entry = match entry {
            Err(_) if index == 0 => return Err(InputError::NoArchive(path.to_path_buf())),
            entry => entry.map_err(unreadable)?,
        };
        let inside = entry.path().map_err(unreadable)?.into_owned();
        let Some(name) = own_name(&inside) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let beside = inside.parent().unwrap_or(Path::new(""));
        if *of_capture.get_or_insert_with(|| beside.to_path_buf()) != beside {
            return Err(InputError::TwoCaptures(path.to_path_buf()));
        }
        let to = dir.path().join(&name);
        let mut file =
            File::create(&to).map_err(|error| InputError::Write { path: to.clone(), error })?;
        io::copy(&mut entry, &mut file).map_err(unreadable)?;
    }
    if !fs::exists(dir.path().join(META_FILE)).map_err(unreadable)? {
        return Err(InputError::NoArchive(path.to_path_buf()));
    }
    let capture = Capture::open(dir.path())?;
    Ok(Unpacked { capture, name: path.display().to_string(), _dir: dir })
}

/// The name of a file that captures have; `None` of any other.
fn own_name(inside: &Path) -> Option<String> {
    let name = inside.file_name()?.to_str()?;
    let known = name == META_FILE || Table::ALL.iter().any(|table| table.file_name() == name);
    known.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Nothing but what a capture has lies where it was unpacked.
    fn check(bytes: &[u8]) {
        let archive = tempfile::NamedTempFile::new().unwrap();
        fs::write(archive.path(), bytes).unwrap();
        match open(archive.path()) {
            Ok(unpacked) => {
                for file in fs::read_dir(unpacked.capture.dir()).unwrap() {
                    assert!(own_name(&file.unwrap().path()).is_some());
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn what_was_found_is_read_again() {
        fuzz::corpus("archive").iter().for_each(|bytes| check(bytes));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// Whatever somebody packed.
        #[test]
        fn hostile_archives(bytes in fuzz::damaged(fuzz::corpus("archive"))) {
            check(&bytes);
        }
    }
}
