//! What outlives the agent: maps and links on a BPF file system, so that counting goes on while no
//! agent runs. Each build has a directory of its own; only its own pins are taken over.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aya::maps::MapInfo;

use super::{Unavailable, container, hold::Hold, sys};

/// Where systemd and most distributions mount the BPF file system.
const BPF_FS: &str = "/sys/fs/bpf";

/// The directory of everything that we pin.
pub const PIN_ROOT: &str = "/sys/fs/bpf/groundtruth";

/// Present where we mounted the BPF file system, so that a purge unmounts it.
const MOUNTED_BY_US: &str = "/run/groundtruth/mounted-bpf-fs";

/// Names this build's programs, and so the layout of what they share with userspace: 16 hexadecimal digits.
pub const BUILD: &str = env!("PROBE_BPF_BUILD");

/// The pins of this build.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    directory: PathBuf,
    /// Inode of the mark that they are complete: another agent's may be at the same path later.
    completed: OnceLock<u64>,
}

impl Pins {
    /// Finds the pins of an earlier agent of this build, or makes room for new ones.
    ///
    /// # Errors
    /// [`Unavailable`] where no BPF file system can be had.
    pub fn prepare(root: &Path, counts_only: bool) -> Result<Self, Unavailable> {
        mount_if_needed()?;
        let purpose = if counts_only { "-counts" } else { "" };
        let pins = Self {
            root: root.into(),
            directory: root.join(format!("{BUILD}{purpose}")),
            completed: OnceLock::new(),
        };
        if !pins.are_complete() {
            // A start that was cut off left this half done.
            remove(&pins.directory);
        }
        fs::create_dir_all(pins.directory.join("links")).map_err(|error| Unavailable {
            what: format!("make the pin directory {}", pins.directory.display()),
            why: error.to_string(),
            cure: "run as root".into(),
        })?;
        Ok(pins)
    }

    /// A complete set of an earlier agent is there to be taken over.
    #[must_use]
    pub fn are_complete(&self) -> bool {
        self.mark().is_dir()
    }

    fn mark(&self) -> PathBuf {
        self.directory.join("ready")
    }

    /// Said where somebody has removed what was complete.
    #[must_use]
    pub fn removed(&self) -> Option<String> {
        let now = fs::metadata(self.mark()).ok().map(|mark| mark.ino());
        (now.as_ref() != self.completed.get()).then(|| {
            format!(
                "what was pinned in {} was removed: these counts end with this agent",
                self.directory.display()
            )
        })
    }

    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Entries of a pinned map, or bytes of a ring.
    ///
    /// # Errors
    /// [`Unavailable`] where it can't be looked at.
    pub fn size(&self, name: &str) -> Result<u32, Unavailable> {
        let info = MapInfo::from_pin(self.map(name)).map_err(|error| Unavailable {
            what: format!("look at the pinned map {}", self.map(name).display()),
            why: error.to_string(),
            cure: container::rights().unwrap_or_else(|| {
                "start anew after `probe stop --purge`; counts are then seeded afresh".into()
            }),
        })?;
        Ok(info.max_entries())
    }

    #[must_use]
    pub fn link(&self, program: &str) -> PathBuf {
        self.directory.join("links").join(program)
    }

    /// Marks this set as complete, and removes those of other builds, whose programs end with it.
    /// Called once the new programs are attached and seeded. Returns the builds that were replaced.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn complete(&self) -> io::Result<Vec<String>> {
        if !self.are_complete() {
            // bpffs has directories, but no plain files.
            fs::create_dir(self.mark())?;
        }
        let mark = fs::metadata(self.mark())?.ino();
        self.completed.get_or_init(|| mark);
        let mut replaced = Vec::new();
        for entry in fs::read_dir(&self.root)?.flatten() {
            if entry.path() != self.directory {
                remove(&entry.path());
                replaced.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(replaced)
    }
}

/// Removes everything that was pinned, and with it the programs from the kernel.
///
/// # Errors
/// Where the BPF file system can't be read or unmounted.
pub fn purge(hold: Hold) -> io::Result<()> {
    let root = Path::new(PIN_ROOT);
    fs::read_dir(root)?.flatten().for_each(|entry| remove(&entry.path()));
    fs::remove_dir(root)?;
    // What is held is on the file system, which could not be unmounted.
    drop(hold);
    if Path::new(MOUNTED_BY_US).exists() {
        // Another mount namespace, such as a container's, took its mount with it.
        if sys::is_bpf_fs(Path::new(BPF_FS)) {
            match sys::unmount(Path::new(BPF_FS)) {
                // An agent that was started meanwhile has it now.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
                unmounted => unmounted?,
            }
        }
        fs::remove_file(MOUNTED_BY_US)?;
    }
    Ok(())
}

/// Removes one set. Links go first: no program is to run on while its maps vanish from sight.
fn remove(directory: &Path) {
    for inner in [directory.join("ready"), directory.join("links"), directory.to_path_buf()] {
        for entry in fs::read_dir(&inner).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&inner);
    }
}

/// # Errors
/// [`Unavailable`] where no BPF file system can be had.
pub fn mount_if_needed() -> Result<(), Unavailable> {
    let mount = || {
        sys::mount_bpf_fs(Path::new(BPF_FS))?;
        if let Some(parent) = Path::new(MOUNTED_BY_US).parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(MOUNTED_BY_US, "")
    };
    if sys::is_bpf_fs(Path::new(BPF_FS)) {
        return Ok(());
    }
    mount().map_err(|error| Unavailable {
        what: format!("mount a BPF file system on {BPF_FS}"),
        why: error.to_string(),
        cure: container::cure("run as root, or mount it: mount -t bpf bpf /sys/fs/bpf".into()),
    })
}
