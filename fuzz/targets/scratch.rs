//! For parsers that read a file.

use std::path::Path;

/// Calls `read` with a file that holds `bytes`.
pub fn with_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static SCRATCH: tempfile::NamedTempFile =
            tempfile::NamedTempFile::new().expect("a scratch file can be made");
    }
    SCRATCH.with(|file| {
        std::fs::write(file, bytes).expect("scratch can be written");
        read(file.path());
    });
}
