//! Control groups of a test's own.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup2; removed on drop, when no process must be left in it.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// # Panics
    /// Without a cgroup2 hierarchy, or the right to make a group.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("{}/groundtruth-{name}-{}-{number}", root(), std::process::id());
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The number by which the kernel and the probe know it.
    #[must_use]
    pub fn id(&self) -> u64 {
        id_of(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Where the cgroup2 hierarchy is mounted.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn root() -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields[2] == "cgroup2")
        .expect("a cgroup2 is mounted")[1]
        .to_owned()
}

/// The number of the group at a path of the file system.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn id_of(path: impl AsRef<Path>) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.as_ref();
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
}
