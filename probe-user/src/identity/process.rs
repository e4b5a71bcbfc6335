//! Which processes hold a socket: inode → pid, by the links in `/proc/PID/fd`. Costs a look at
//! every descriptor of the host, so it is done once for many sockets.

use std::{
    collections::{HashMap, HashSet},
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
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let mut held: HashSet<u32> = HashSet::new();
        for descriptor in descriptors.flatten() {
            if let Ok(link) = fs::read_link(descriptor.path())
                && let Some(inode) = link.to_str().and_then(socket_inode)
                && inodes.contains(&inode)
            {
                held.insert(inode);
            }
        }
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
    use std::{net::TcpListener, os::fd::AsRawFd};

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
}
