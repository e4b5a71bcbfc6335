//! Which processes hold a socket: inode → pid, by the links in `/proc/PID/fd`. Costs a look at
//! every descriptor of the host, so it is done once for many sockets.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
};

use serde::{Deserialize, Serialize};

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub pid: u32,
    /// `/proc/PID/comm`, at most 15 bytes.
    pub comm: String,
}

/// The processes that hold each of these sockets, lowest pid first. A socket that is missing is
/// held by none, or by one this user may not look at.
#[must_use]
pub fn owners(inodes: &HashSet<u32>) -> HashMap<u32, Vec<Owner>> {
    let mut owners: HashMap<u32, Vec<Owner>> = HashMap::new();
    if inodes.is_empty() {
        return owners;
    }
    for pid in pids() {
        let held: HashSet<u32> = sockets(pid).filter(|inode| inodes.contains(inode)).collect();
        if held.is_empty() {
            continue;
        }
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let owner = Owner { pid, comm: comm.trim_end().to_owned() };
        for inode in held {
            owners.entry(inode).or_default().push(owner.clone());
        }
    }
    owners
}

/// The sockets that a process holds, as far as this user may look.
pub(crate) fn sockets(pid: u32) -> impl Iterator<Item = u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| {
        fs::read_link(descriptor.path()).ok()?.to_str().and_then(socket_inode)
    })
}

/// Who holds some sockets, looked for once as long as all of them live.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    inodes: HashSet<u32>,
    pids: BTreeSet<u32>,
}

impl Holders {
    pub(crate) fn of(&mut self, inodes: &HashSet<u32>) -> &BTreeSet<u32> {
        let is_alive = |pid: &u32| sockets(*pid).any(|inode| inodes.contains(&inode));
        if self.inodes != *inodes || !self.pids.iter().all(is_alive) {
            self.pids = owners(inodes).into_values().flatten().map(|owner| owner.pid).collect();
            self.inodes.clone_from(inodes);
        }
        &self.pids
    }
}

/// The processes of this host, in ascending order.
pub(crate) fn pids() -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::{AsRawFd, OwnedFd},
        process::{Child, Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_test_itself_holds_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = socket_inode(link.to_str().unwrap()).unwrap();
        let found = owners(&HashSet::from([inode, u32::MAX]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[&inode][0].pid, std::process::id());
    }

    /// Another process that holds a socket, as its standard input.
    struct Another(Child);

    impl Another {
        fn with(listener: &TcpListener) -> Self {
            let socket = OwnedFd::from(listener.try_clone().unwrap());
            let mut sleep = Command::new("sleep");
            sleep.arg("600").stdin(socket).stdout(Stdio::null()).stderr(Stdio::null());
            Self(sleep.spawn().unwrap())
        }
    }

    impl Drop for Another {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn holders_are_looked_for_again_when_one_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inodes = HashSet::from([socket_inode(link.to_str().unwrap()).unwrap()]);
        let us = std::process::id();
        let first = Another::with(&listener);
        let mut holders = Holders::default();
        let both = BTreeSet::from([us, first.0.id()]);
        assert_eq!(*holders.of(&inodes), both);
        let second = Another::with(&listener);
        assert_eq!(*holders.of(&inodes), both);
        drop(first);
        assert_eq!(*holders.of(&inodes), BTreeSet::from([us, second.0.id()]));
    }
}
