//! The network namespaces of this host, and a way to run code inside one.
//!
//! A namespace is found if a process lives in it or if it is mounted (`ip netns`, Docker, CNI). One
//! that only a socket or an open descriptor keeps alive is not: see [`super::netns_handle`].

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    marker::PhantomData,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// A network namespace, kept alive by an open descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    /// The inode that names it everywhere: `stat -L /proc/PID/ns/net`.
    pub inode: u32,
    file: Arc<File>,
    /// By which it was opened, if by one.
    path: PathBuf,
}

impl Netns {
    /// Opens a namespace by the path of its handle.
    ///
    /// # Errors
    /// As `open(2)` and `fstat(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), ..Self::of_file(File::open(path)?)? })
    }

    /// One that has no path.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of_file(file: File) -> io::Result<Self> {
        let inode = inode_number(&file)?;
        Ok(Self { inode, file: Arc::new(file), path: PathBuf::new() })
    }

    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The namespace of this process.
    ///
    /// # Errors
    /// As [`Netns::open`].
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// Runs `work` on a thread of its own that has entered this namespace; the caller's thread stays
    /// where it is. Sockets opened inside stay in the namespace.
    ///
    /// # Errors
    /// When the kernel refuses `setns(2)`: entering another namespace takes `CAP_SYS_ADMIN`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if Self::current()?.inode == self.inode {
            return Ok(work());
        }
        aside(|| self.enter().map(|()| work()))?
    }

    /// Moves the current thread.
    fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open for the whole call; setns changes this thread only.
        let entered = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
        if entered == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The namespace that the current thread is in, for what only a look from inside tells.
#[derive(Debug)]
pub struct Inside {
    pub inode: u32,
    _of_this_thread: PhantomData<*const ()>,
}

/// As [`Netns::run`] for many, on one thread that enters them in turn: on a host with hundreds of containers
/// starting a thread for each takes longer than the look. Results are in the order of `namespaces`.
///
/// # Errors
/// When the own namespace can't be told, or no thread can be started; of each, as [`Netns::run`].
pub fn in_each<T: Send>(
    namespaces: &[Netns],
    mut work: impl FnMut(&Inside) -> T + Send,
) -> io::Result<Vec<io::Result<T>>> {
    let own = Netns::current()?.inode;
    if namespaces.iter().all(|netns| netns.inode == own) {
        let mut inside = || work(&Inside { inode: own, _of_this_thread: PhantomData });
        return Ok(namespaces.iter().map(|_| Ok(inside())).collect());
    }
    aside(|| {
        let mut here = own;
        let visit = |netns: &Netns| {
            if here != netns.inode {
                netns.enter()?;
                here = netns.inode;
            }
            Ok(work(&Inside { inode: here, _of_this_thread: PhantomData }))
        };
        namespaces.iter().map(visit).collect()
    })
}

/// Runs `work` on a thread of its own.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, work)?.join() {
        Ok(result) => Ok(result),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn inode_number(file: &File) -> io::Result<u32> {
    // nsfs inodes are 32 bits wide (`ns_common.inum`).
    u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)
}

/// Every network namespace that can be found, and how many processes could not be looked at.
#[derive(Clone, Debug)]
pub struct Found {
    /// Ordered by inode.
    pub namespaces: Vec<Netns>,
    /// Processes whose namespace this user may not see.
    pub unreadable: usize,
    /// Those that are there and could not be opened, and why.
    pub unopened: Vec<String>,
}

/// Looks through `/proc/*/ns/net` and the mounted namespaces.
///
/// # Errors
/// When `/proc` cannot be read, or not even the own namespace.
pub fn find() -> io::Result<Found> {
    let mut search = Search::default();
    let own = Netns::current()?;
    search.opened.insert(own.inode, own);
    let mut unreadable = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        match fs::read_link(&path) {
            Ok(link) => search.add(link_inode(&link), &path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unreadable += 1,
            // The process has ended.
            Err(_) => {}
        }
    }
    for (inode, path) in mounted(&fs::read_to_string("/proc/self/mountinfo")?) {
        search.add(Some(inode), &path);
    }
    Ok(search.found(unreadable))
}

#[derive(Debug, Default)]
struct Search {
    opened: BTreeMap<u32, Netns>,
    refused: BTreeMap<u32, io::Error>,
}

impl Search {
    fn add(&mut self, inode: Option<u32>, path: &Path) {
        let Some(inode) = inode else { return };
        if self.opened.contains_key(&inode) {
            return;
        }
        match Netns::open(path) {
            // Between the look and the open the process may have ended or moved: believe the open.
            Ok(namespace) if namespace.inode == inode => {
                self.opened.insert(inode, namespace);
            }
            Err(error) if !is_gone(&error) => {
                self.refused.insert(inode, error);
            }
            _ => {}
        }
    }

    fn found(self, unreadable: usize) -> Found {
        let unopened = self.refused.iter().filter(|(inode, _)| !self.opened.contains_key(inode));
        Found {
            unopened: unopened
                .map(|(inode, error)| format!("cannot open network namespace {inode}: {error}"))
                .collect(),
            namespaces: self.opened.into_values().collect(),
            unreadable,
        }
    }
}

/// The process or the mount is no longer there.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// How long namespaces without a socket that is counted may stay unknown.
const FIND_EVERY: Duration = Duration::from_secs(10);

/// The namespaces of this host, for who wants them every second: a look at every process each time
/// would be most of that work. None is held open in between, or it would outlive its last process.
#[derive(Debug, Default)]
pub struct Known {
    /// By inode and path, as they were found last.
    handles: Vec<(u32, PathBuf)>,
    found: Option<Instant>,
    /// What sockets were counted in by then.
    counted: HashSet<u32>,
}

impl Known {
    /// All of them, looked for again where sockets are counted in others than before, where one is no
    /// longer what it was, and after 10 s.
    ///
    /// # Errors
    /// As [`find`].
    pub fn open(&mut self, counted: HashSet<u32>) -> io::Result<Vec<Netns>> {
        let is_old = self.found.is_none_or(|found| found.elapsed() >= FIND_EVERY);
        if !is_old && counted.is_subset(&self.counted) {
            let opened = self.handles.iter().map(|(inode, path)| {
                Netns::open(path).ok().filter(|namespace| namespace.inode == *inode)
            });
            if let Some(namespaces) = opened.collect() {
                return Ok(namespaces);
            }
        }
        let namespaces = find()?.namespaces;
        self.handles = namespaces.iter().map(|found| (found.inode, found.path.clone())).collect();
        self.found = Some(Instant::now());
        self.counted = counted;
        Ok(namespaces)
    }
}

/// `net:[4026531840]` → 4026531840
fn link_inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Namespace mounts of `/proc/self/mountinfo`: the root field reads `net:[inode]`.
fn mounted(mountinfo: &str) -> Vec<(u32, PathBuf)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let root = fields.nth(3)?;
            let mount_point = fields.next()?;
            Some((link_inode(Path::new(root))?, PathBuf::from(unescape(mount_point))))
        })
        .collect()
}

/// The kernel writes blanks and backslashes in mount points as three octal digits.
pub(super) fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespace_is_found_and_entered() {
        let own = Netns::current().unwrap();
        let found = find().unwrap();
        assert!(found.namespaces.iter().any(|namespace| namespace.inode == own.inode));
        assert_eq!(own.run(|| 23).unwrap(), 23);
    }

    #[test]
    fn what_is_known_is_looked_for_again_when_it_ends_or_others_are_counted() {
        let own = Netns::current().unwrap().inode;
        let mut known = Known::default();
        let opened = |known: &mut Known, counted: &[u32]| {
            let namespaces = known.open(counted.iter().copied().collect()).unwrap();
            assert!(namespaces.iter().any(|namespace| namespace.inode == own));
            // Those of other processes may end at any time.
            known.handles.retain(|(inode, _)| *inode == own);
            known.found.unwrap()
        };
        let first = opened(&mut known, &[own]);
        assert_eq!(opened(&mut known, &[own]), first);
        assert_eq!(opened(&mut known, &[]), first);
        let with_another = opened(&mut known, &[own, 23]);
        assert!(with_another > first);
        // One of which nothing is found is not looked for each time.
        assert_eq!(opened(&mut known, &[own, 23]), with_another);
        known.handles.push((23, PathBuf::from("/proc/self/ns/net")));
        assert!(opened(&mut known, &[own]) > with_another);
        assert!(known.handles.iter().all(|(inode, _)| *inode != 23));
    }

    #[test]
    fn mounts_of_namespaces_are_told_from_other_mounts() {
        let mountinfo = "\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
1163 27 0:4 net:[4026532281] /run/netns/a\\040b rw shared:5 - nsfs nsfs rw
1170 27 0:4 mnt:[4026532300] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
";
        assert_eq!(mounted(mountinfo), [(4_026_532_281, PathBuf::from("/run/netns/a b"))]);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
        assert_eq!(unescape("\\9zz"), "\\9zz");
    }
}
