//! Where cgroups of version 1 are all there is, sockets carry none: what a population belongs to is then
//! told by the processes that hold its sockets, and by those that live in its network namespace.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use probe_common::{key::CountKey, state::role};

use super::{cgroup::Container, netns, process};
use crate::truth::{
    polled::{dump_all, keyed},
    sock_diag::Detail,
};

/// A namespace, a service's port, and whether that port is the peer's.
pub(super) type Service = (u32, u16, bool);

pub(super) fn service_of(key: &CountKey) -> Service {
    (key.netns, key.port, key.role == role::ACTIVE)
}

/// What the holders of each service's sockets are in, listeners as well; `None` where that is not one
/// and the same. Blocks for a look at every socket and every descriptor of the host.
pub(super) fn containers_by_service() -> anyhow::Result<HashMap<Service, Option<Container>>> {
    let dumped = dump_all(Detail::Basic)?;
    let sockets = keyed(&dumped.sockets);
    let inodes: HashSet<u32> =
        sockets.iter().map(|(socket, _)| socket.inode).filter(|&inode| inode != 0).collect();
    let owners = process::owners(&inodes);
    let mut by_pid: HashMap<u32, Container> = HashMap::new();
    let mut found: HashMap<Service, Option<Container>> = HashMap::new();
    for (socket, key) in sockets {
        for owner in owners.get(&socket.inode).into_iter().flatten() {
            let container = by_pid.entry(owner.pid).or_insert_with(|| container_of(owner.pid));
            found
                .entry(service_of(&key))
                .and_modify(|other| {
                    if other.as_ref() != Some(&*container) {
                        *other = None;
                    }
                })
                .or_insert_with(|| Some(container.clone()));
        }
    }
    Ok(found)
}

/// The container that the processes of a namespace are in, where that is one container.
pub(super) fn containers_by_netns(host_netns: u32) -> HashMap<u32, Container> {
    let mut found: HashMap<u32, Option<Container>> = HashMap::new();
    for pid in process::pids() {
        let Ok(namespace) = netns::Netns::open(format!("/proc/{pid}/ns/net").as_ref()) else {
            continue;
        };
        if namespace.inode == host_netns {
            continue;
        }
        let container = Some(container_of(pid)).filter(|container| container.id.is_some());
        found
            .entry(namespace.inode)
            .and_modify(|other| {
                if *other != container {
                    *other = None;
                }
            })
            .or_insert(container);
    }
    found.into_iter().filter_map(|(netns, container)| Some((netns, container?))).collect()
}

/// By `/proc/PID/cgroup`: any line may name a container or a unit, of version 1 or 2.
fn container_of(pid: u32) -> Container {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    most_telling(&lines)
}

fn most_telling(lines: &str) -> Container {
    let named = lines.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(Container::of_path);
    let rank = |container: &Container| match (&container.id, container == &Container::host()) {
        (Some(_), _) => 0,
        (None, false) => 1,
        (None, true) => 2,
    };
    named.min_by_key(rank).unwrap_or_else(Container::host)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_container_tells_more_than_a_unit_and_a_unit_more_than_the_host() {
        let id = "8f4a1c0d5e6b7a8990a1b2c3d4e5f60718293a4b5c6d7e8f9012a3b4c5d6e7f8";
        let unit = "3:pids:/\n1:name=systemd:/system.slice/web.service\n0::/\n";
        assert_eq!(most_telling(unit).name, "web.service");
        let container = format!("{unit}2:cpu,cpuacct:/docker/{id}\n");
        assert_eq!(most_telling(&container).id.as_deref(), Some(id));
        assert_eq!(most_telling("3:pids:/\n0::/\n"), Container::host());
        assert_eq!(most_telling(""), Container::host());
    }

    #[test]
    fn the_test_itself_holds_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let netns = netns::Netns::current().unwrap().inode;
        let found = containers_by_service().unwrap();
        let me = container_of(std::process::id());
        assert_eq!(found.get(&(netns, port, false)), Some(&Some(me)));
    }
}
