//! Disks that fail or stall: small file systems in mounts of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::tool;

/// A small file system in a mount of its own, taken away on drop.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// # Panics
    /// If `mount` refuses.
    #[must_use]
    pub fn mount(directory: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(directory).expect("a mount point");
        let path = directory.to_string_lossy();
        tool("mount", &[arguments, &[&*path]].concat());
        Self(directory.to_path_buf())
    }

    /// A file that leaves no room for others.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        let page = [1; 4096];
        while std::io::Write::write_all(&mut file, &page).is_ok() {}
        ballast
    }

    /// Whoever writes to it waits, until the guard is dropped.
    ///
    /// # Panics
    /// If its file system cannot do so.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        tool("fsfreeze", &["--freeze", &self.0.to_string_lossy()]);
        Frozen(self)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A disk that takes nothing.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.0).status();
    }
}

/// A block device with a file, released on drop.
#[derive(Debug)]
pub struct Loop(String);

impl Loop {
    /// An empty ext4 of 64 MiB in a new file.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn ext4(file: &str) -> Self {
        std::fs::File::create(file).and_then(|image| image.set_len(64 << 20)).expect("an image");
        tool("mkfs.ext4", &["-q", file]);
        Self(tool("losetup", &["--find", "--show", file]).trim().to_owned())
    }

    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}
