//! Who a socket belongs to: cgroup → container, namespaces, processes.

pub mod cgroup;
pub(crate) mod docker;
pub mod netns;
pub mod process;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cgroup::{Container, Mounted};

/// How long an id that could not be found is not looked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Names cgroups, remembering those that are gone.
#[derive(Debug)]
pub struct Identity {
    mounted: Mounted,
    host_netns: u32,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// cgroup id → path, of cgroups that exist and of those that did.
    paths: HashMap<u64, String>,
    /// Docker's id → name, of containers that exist and of those that did.
    names: HashMap<String, String>,
    /// Container of a namespace, for sockets that are in no cgroup of their own.
    by_netns: HashMap<u32, Container>,
    missing: HashMap<(u64, u32), Instant>,
}

impl Identity {
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            mounted: Mounted::find()?,
            host_netns: netns::Netns::open("/proc/1/ns/net".as_ref())
                .or_else(|_| netns::Netns::current())?
                .inode,
            known: Mutex::default(),
        })
    }

    /// Asks Docker for the names of today, and looks for the paths of cgroups (with the namespace of
    /// their sockets) that are not known yet. Without this, [`Identity::of`] knows only what it knew.
    pub async fn refresh(&self, populations: impl IntoIterator<Item = (u64, u32)>) {
        self.find(populations);
        if let Ok(names) = docker::names(&docker::socket_path()).await {
            self.lock().names.extend(names);
        }
    }

    fn find(&self, populations: impl IntoIterator<Item = (u64, u32)>) {
        let mut known = self.lock();
        let unknown: HashSet<(u64, u32)> = populations
            .into_iter()
            .filter(|&(cgroup_id, netns)| {
                let path = known.paths.get(&cgroup_id);
                let by_netns = netns == self.host_netns || known.by_netns.contains_key(&netns);
                path.is_none_or(|path| path == "/" && !by_netns)
            })
            .filter(|key| known.missing.get(key).is_none_or(|at| at.elapsed() > RETRY))
            .collect();
        if unknown.is_empty() {
            return;
        }
        if let Some(mount) = self.mounted.path() {
            known.paths.extend(cgroup::walk(mount));
        }
        known.by_netns.extend(containers_by_netns(self.host_netns));
        known.missing.retain(|_, at| at.elapsed() <= RETRY);
        known.missing.extend(unknown.into_iter().map(|key| (key, Instant::now())));
    }

    /// What the sockets of a cgroup belong to, as far as is known since the last refresh.
    pub fn of(&self, cgroup_id: u64, netns: u32) -> Container {
        let known = self.lock();
        let mut container = match known.paths.get(&cgroup_id).map(String::as_str) {
            // The root of cgroup2 holds everything where containers use version 1 only.
            None | Some("/") if known.by_netns.contains_key(&netns) => {
                known.by_netns[&netns].clone()
            }
            Some(path) => Container::of_path(path),
            None => Container::unknown(cgroup_id),
        };
        if let Some(name) = container.id.as_ref().and_then(|id| known.names.get(id)) {
            container.name.clone_from(name);
        }
        container
    }

    /// Path of a cgroup below the cgroup2 mount.
    pub fn path(&self, cgroup_id: u64) -> Option<String> {
        self.lock().paths.get(&cgroup_id).cloned()
    }

    /// Names of everything that has a cgroup now, in order, for messages and for `--container`.
    pub fn containers(&self) -> Vec<Container> {
        let known = self.lock();
        let mut containers: Vec<Container> = self
            .mounted
            .path()
            .map(cgroup::walk)
            .unwrap_or_default()
            .into_values()
            .map(|path| Container::of_path(&path))
            .chain(known.by_netns.values().cloned())
            .collect();
        for container in &mut containers {
            if let Some(name) = container.id.as_ref().and_then(|id| known.names.get(id)) {
                container.name.clone_from(name);
            }
        }
        containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        containers.dedup();
        containers
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing panics between two writes that belong together.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The container that the processes of a namespace are in, where that is one container: any line of
/// `/proc/PID/cgroup` may name it, version 1 or 2.
fn containers_by_netns(host_netns: u32) -> HashMap<u32, Container> {
    let mut found: HashMap<u32, Option<Container>> = HashMap::new();
    for pid in process::pids() {
        let Ok(namespace) = netns::Netns::open(format!("/proc/{pid}/ns/net").as_ref()) else {
            continue;
        };
        if namespace.inode == host_netns {
            continue;
        }
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let container = lines
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(Container::of_path)
            .find(|container| container.id.is_some());
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
