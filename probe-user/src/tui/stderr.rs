//! Keeps messages off the screen while it is drawn on: what the kernel programs or a thread have to
//! say is shown once the view has ended.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

/// Of more than this, only the end is shown.
const MOST: u64 = 8 << 10;

/// Standard error as a file in memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    terminal: OwnedFd,
    messages: File,
}

impl Held {
    /// `None` where standard error goes elsewhere already.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn begin() -> io::Result<Option<Self>> {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return Ok(None);
        }
        let terminal = stderr.as_fd().try_clone_to_owned()?;
        // SAFETY: the name is a C string; the kernel keeps no reference to it.
        let fd = unsafe { libc::memfd_create(c"probe-messages".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let messages = unsafe { File::from_raw_fd(fd) };
        replace_stderr(&messages)?;
        Ok(Some(Self { terminal, messages }))
    }

    fn end(&mut self) -> io::Result<()> {
        replace_stderr(&self.terminal)?;
        let length = self.messages.seek(SeekFrom::End(0))?;
        self.messages.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut text = Vec::new();
        self.messages.read_to_end(&mut text)?;
        io::stderr().write_all(&text)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // With no standard error there is nobody to tell.
        let _ = self.end();
    }
}

fn replace_stderr(with: &impl AsFd) -> io::Result<()> {
    // SAFETY: both descriptors are open; dup2 takes no pointers.
    match unsafe { libc::dup2(with.as_fd().as_raw_fd(), libc::STDERR_FILENO) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
