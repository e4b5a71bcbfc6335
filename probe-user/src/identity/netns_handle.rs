//! Namespaces that nobody lives in any more, opened by the handle they had while they were found. From Linux
//! 6.18 on the kernel gives such handles, and a handle keeps nothing alive.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, RawFd},
};

use super::netns::{self, Found, Netns};

/// `FD_NSFS_ROOT` of linux/fcntl.h: stands for the file system that namespaces are on.
const NSFS_ROOT: RawFd = -10_003;

/// `struct file_handle`, with room for the longest.
#[repr(C)]
#[derive(Clone, Debug)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl Handle {
    fn of(file: &File) -> io::Result<Self> {
        let room = [0; libc::MAX_HANDLE_SZ as usize];
        let mut handle = Self { bytes: room.len() as u32, kind: 0, handle: room };
        let mut mount = 0;
        // SAFETY: the handle has the room that its first field says, and all pointers live for the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                file.as_raw_fd(),
                c"".as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(handle) }
    }

    fn open(&self) -> io::Result<File> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the handle is one that the kernel has filled, and lives for the call.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, NSFS_ROOT, &raw const *self, flags)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a new descriptor that nobody else owns.
        Ok(unsafe { File::from_raw_fd(fd as RawFd) })
    }
}

/// Whether a namespace can be opened by its handle, tried on our own.
///
/// # Errors
/// Why not.
pub fn can_be_had() -> io::Result<()> {
    Handle::of(&File::open("/proc/self/ns/net")?)?.open().map(drop)
}

/// Handles of the namespaces that were found so far and are of interest still, by inode.
#[derive(Debug, Default)]
pub struct Remembered(HashMap<u32, Handle>);

impl Remembered {
    /// As [`netns::find`], and those of `wanted` that only their sockets keep alive.
    ///
    /// # Errors
    /// As [`netns::find`].
    pub fn find(&mut self, wanted: &HashSet<u32>) -> io::Result<Found> {
        let mut found = netns::find()?;
        // An inode's number is used again: what is found now is what it stands for.
        for namespace in &found.namespaces {
            match Handle::of(namespace.file()) {
                Ok(handle) => self.0.insert(namespace.inode, handle),
                // This kernel has none.
                Err(_) => self.0.remove(&namespace.inode),
            };
        }
        let there: HashSet<u32> = found.namespaces.iter().map(|found| found.inode).collect();
        self.0.retain(|inode, _| there.contains(inode) || wanted.contains(inode));
        for (inode, handle) in self.0.iter().filter(|(inode, _)| !there.contains(inode)) {
            if let Ok(namespace) = handle.open().and_then(Netns::of_file)
                && namespace.inode == *inode
            {
                found.namespaces.push(namespace);
            }
        }
        Ok(found)
    }
}
