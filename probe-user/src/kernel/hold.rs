//! One agent per set of pinned programs: their records can be read only once. The lock is on the directory
//! that the pins are in, so it is there wherever they can be reached: also from a container, and when the
//! runtime directory has been removed. And on the file system's own, which nobody can remove.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::Context;

use super::{container, pin};
use crate::{error::Error, truth::choose::unsupported};

/// Whoever may open a directory may lock it, and so keep the agent from starting.
const MODE: u32 = 0o700;

/// Held as long as the pins are used; the kernel frees it however that ends.
#[derive(Debug)]
pub struct Hold {
    _file_system: Option<File>,
    _directory: File,
}

/// Takes the pins below `root`, of which there may be none yet.
///
/// # Errors
/// [`Error::AgentRuns`] if another process has them; [`Error::Unsupported`] where there can't be any.
pub fn take(root: &Path) -> anyhow::Result<Hold> {
    pin::mount_if_needed().map_err(unsupported)?;
    let above = root.parent().context("the pin directory is in another")?;
    let file_system = if is_roots_alone(above) { Some(lock(above)?) } else { None };
    loop {
        let made = DirBuilder::new().recursive(true).mode(MODE).create(root);
        made.map_err(|error| refused(root, &error))?;
        let directory = match File::open(root) {
            // A purge was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|error| refused(root, &error))?,
        };
        // An earlier version made it readable for all.
        let closed = directory.set_permissions(fs::Permissions::from_mode(MODE));
        closed.map_err(|error| refused(root, &error))?;
        let directory = lock_opened(directory, root)?;
        // A purge that went on meanwhile has removed what was opened.
        let is_there = fs::metadata(root).is_ok_and(|now| {
            directory
                .metadata()
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
        });
        if is_there {
            return Ok(Hold { _file_system: file_system, _directory: directory });
        }
    }
}

fn refused(directory: &Path, error: &io::Error) -> Error {
    Error::Unsupported {
        what: format!("lock the directory {}", directory.display()),
        why: error.to_string(),
        cure: container::cure("run as root".into()),
    }
}

/// Nobody else can open it.
fn is_roots_alone(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o077 == 0)
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let directory = File::open(path).map_err(|error| refused(path, &error))?;
    lock_opened(directory, path)
}

fn lock_opened(directory: File, path: &Path) -> anyhow::Result<File> {
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(Error::AgentRuns { who: holder(&directory)? }.into()),
        Err(TryLockError::Error(error)) => Err(refused(path, &error).into()),
    }
}

/// Who has the lock, by the kernel's list of locks.
fn holder(directory: &File) -> anyhow::Result<String> {
    let metadata = directory.metadata().context("cannot look at the pin directory")?;
    let locks = fs::read_to_string("/proc/locks").context("cannot read /proc/locks")?;
    let inode = metadata.ino();
    let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    Ok(match pid_of(&locks, device, inode) {
        Some(pid) => format!("pid {pid}"),
        // Those of other process namespaces are not in the list.
        None => "in another container or namespace of processes".into(),
    })
}

/// `2: FLOCK  ADVISORY  WRITE 1234 00:1f:5678 0 EOF` → 1234
fn pid_of(locks: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", device.0, device.1);
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(4);
        let pid = words.next()?;
        (words.next()? == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_other_locks() {
        let locks = "\
1: POSIX  ADVISORY  READ 711 08:01:1057 0 EOF
1: -> POSIX  ADVISORY  WRITE 712 00:1f:23 0 EOF
2: FLOCK  ADVISORY  WRITE 1234 00:1f:2300 0 EOF
3: FLOCK  ADVISORY  WRITE 4321 00:1f:23 0 EOF
";
        assert_eq!(pid_of(locks, (0, 0x1f), 23), Some(4321));
        assert_eq!(pid_of(locks, (8, 1), 23), None);
    }

    #[test]
    fn a_directory_that_is_locked_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let held = File::open(directory.path()).unwrap();
        held.try_lock().unwrap();
        let ours = File::open(directory.path()).unwrap();
        assert_eq!(holder(&ours).unwrap(), format!("pid {}", std::process::id()));
    }
}
