//! One agent per socket: whoever holds the lock beside it is it.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::error::Error;

/// Whoever may read a file may lock it, and so keep the agent from starting; and what it says is who is
/// stopped.
const MODE: u32 = 0o600;

/// Held as long as the agent runs; the kernel frees it however the agent ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

fn path(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

impl Lock {
    /// Takes the lock and writes our pid into it.
    ///
    /// # Errors
    /// [`Error::AgentRuns`] if another process has it; [`Error::Unsupported`] if this user may not
    /// write there, [`Error::Input`] if nobody can.
    pub(crate) fn take(socket: &Path) -> anyhow::Result<Self> {
        let path = path(socket);
        let unwritable = |error: io::Error| {
            let why = format!("cannot write {}: {error}", path.display());
            let next = "run it as root, or choose another place with --agent-socket";
            if error.kind() == io::ErrorKind::PermissionDenied {
                let what = "run the agent".into();
                Error::Unsupported { what, why, cure: next.into() }
            } else {
                Error::input(why, next)
            }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(unwritable)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(MODE)
            .open(&path)
            .map_err(unwritable)?;
        file.set_permissions(Permissions::from_mode(MODE)).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = format!("pid {}", read_pid(&mut file)?);
                return Err(Error::AgentRuns { who }.into());
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error).into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// The agent's pid, if one runs.
///
/// # Errors
/// When the lock file cannot be read.
pub(crate) fn holder(socket: &Path) -> anyhow::Result<Option<i32>> {
    let path = path(socket);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => read_pid(&mut file).map(Some),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Waits until no agent runs; false if one still does in the end.
pub(crate) fn wait_free(socket: &Path, patience: Duration) -> anyhow::Result<bool> {
    let began = Instant::now();
    while holder(socket)?.is_some() {
        if began.elapsed() > patience {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

fn read_pid(file: &mut File) -> anyhow::Result<i32> {
    // Between taking the lock and writing its pid the other needs a moment.
    for _ in 0..20 {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if let Some(pid) = text.trim().parse().ok().filter(|&pid| pid > 0) {
            return Ok(pid);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("the lock file of the running agent holds no pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        assert_eq!(holder(&socket).unwrap(), None);
        // What an earlier version has left is taken, and closed to others.
        fs::write(path(&socket), "1\n").unwrap();
        fs::set_permissions(path(&socket), Permissions::from_mode(0o644)).unwrap();
        let lock = Lock::take(&socket).unwrap();
        let mode = fs::metadata(path(&socket)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let own = std::process::id().cast_signed();
        assert_eq!(holder(&socket).unwrap(), Some(own));
        let refused = Lock::take(&socket).unwrap_err();
        assert!(
            refused.to_string().starts_with(&format!("an agent is already running, pid {own}\n"))
        );
        drop(lock);
        assert_eq!(holder(&socket).unwrap(), None);
        Lock::take(&socket).unwrap();
    }
}
