//! Control groups of a test's own.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn numbered(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

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
        Self::called(&format!("groundtruth-{}", numbered(name)))
    }

    /// One that is taken for a unit of systemd.
    ///
    /// # Panics
    /// As [`Cgroup::new`].
    #[must_use]
    pub fn unit(name: &str) -> Self {
        Self::called(&format!("{}.service", numbered(name)))
    }

    fn called(name: &str) -> Self {
        let path = format!("{}/{name}", root());
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

/// A group whose processes may have so much memory together, of whichever version of cgroups has the
/// controller; removed on drop, when no process must be left in it.
#[derive(Debug)]
pub struct MemoryLimit {
    path: String,
}

impl MemoryLimit {
    /// # Panics
    /// If there is no controller of memory.
    #[must_use]
    pub fn new(name: &str, mebibytes: u64) -> Self {
        let bytes = (mebibytes << 20).to_string();
        let name = format!("groundtruth-{name}-{}", std::process::id());
        let write = |path: &str, text: &str| {
            fs::write(path, text).unwrap_or_else(|e| panic!("{path}: {e}"));
        };
        match mount_of_memory() {
            Some(root) => {
                let path = format!("{root}/{name}");
                fs::create_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                write(&format!("{path}/memory.limit_in_bytes"), &bytes);
                Self { path }
            }
            None => {
                write(&format!("{}/cgroup.subtree_control", root()), "+memory");
                let path = format!("{}/{name}", root());
                fs::create_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                write(&format!("{path}/memory.max"), &bytes);
                // Where there is swap, that would be used first.
                let _ = fs::write(format!("{path}/memory.swap.max"), "0");
                Self { path }
            }
        }
    }

    /// The file that takes the number of a process to enter.
    #[must_use]
    pub fn procs(&self) -> String {
        format!("{}/cgroup.procs", self.path)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
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

/// Where version 1 of the memory controller is mounted, if it is that.
fn mount_of_memory() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let is_memory = fields[3].split(',').any(|option| option == "memory");
        (fields[2] == "cgroup" && is_memory).then(|| fields[1].to_owned())
    })
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
