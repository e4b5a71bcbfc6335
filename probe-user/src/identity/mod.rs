//! Who a socket belongs to: cgroup → container, namespaces, processes.

pub mod cgroup;
pub(crate) mod docker;
mod holder;
pub mod netns;
pub mod netns_handle;
pub mod process;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cgroup::{Container, Mounted};
use holder::Service;
use probe_common::key::CountKey;
use tokio::task::JoinHandle;

/// How long what could not be found is not looked for again …
const RETRY: Duration = Duration::from_secs(1);
/// … and where a look goes through every descriptor of the host.
const RETRY_HOLDERS: Duration = Duration::from_secs(5);

/// The root of cgroup2, also where it is not mounted; the kernel gives every hierarchy's root this id.
const ROOT: u64 = 1;
/// Set in numbers that stand for a container, and in no cgroup's id.
const STAND_IN: u64 = 1 << 63;

/// Names cgroups, remembering those that are gone.
#[derive(Debug)]
pub struct Identity {
    mounted: Mounted,
    host_netns: u32,
    known: Arc<Mutex<Known>>,
    namespaces: Mutex<netns::Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// cgroup id → path, of cgroups that exist and of those that did.
    paths: HashMap<u64, String>,
    /// Docker's id → name, of containers that exist and of those that did.
    names: HashMap<String, String>,
    /// Docker's id → whether its health check holds, of containers that have one.
    healthy: HashMap<String, bool>,
    /// Containers whose name was waited for.
    asked: HashSet<String>,
    asked_at: Option<Instant>,
    /// Container of a namespace, for sockets that are in no cgroup of their own.
    by_netns: HashMap<u32, Container>,
    /// Container of a service, by its holders, where there is no cgroup2; `None`: of several.
    by_service: HashMap<Service, Option<Container>>,
    missing: HashMap<CountKey, Instant>,
}

impl Known {
    /// The container of sockets that are in no cgroup of their own.
    fn without_cgroup(&self, key: &CountKey) -> Option<Container> {
        let by_service = || self.by_service.get(&holder::service_of(key)).cloned().flatten();
        self.by_netns.get(&key.netns).cloned().or_else(by_service)
    }
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
            known: Arc::default(),
            namespaces: Mutex::default(),
        })
    }

    pub(crate) fn host_netns(&self) -> u32 {
        self.host_netns
    }

    /// Asks Docker for the names of today, and looks for what populations belong to that are not known
    /// yet. Without this, [`Identity::of`] knows only what it knew.
    pub async fn refresh(&self, populations: impl IntoIterator<Item = CountKey>) {
        self.find(populations);
        let _ = self.ask_docker().await;
    }

    /// As [`Identity::refresh`], for who has no time to wait for Docker: its answer is there for who asks
    /// next, and it is asked once a second at most. A name that was never known is waited for, once.
    pub async fn refresh_soon(&self, populations: impl IntoIterator<Item = CountKey>) {
        let populations: Vec<CountKey> = populations.into_iter().collect();
        self.find(populations.iter().copied());
        if self.has_nameless(&populations) {
            let _ = self.ask_docker().await;
        } else if self.is_time_to_ask() {
            self.ask_docker();
        }
    }

    /// Goes on by itself, also where nobody waits for it.
    fn ask_docker(&self) -> JoinHandle<()> {
        let known = Arc::clone(&self.known);
        tokio::spawn(async move {
            if let Ok(told) = docker::containers(&docker::socket_path()).await {
                let mut known = lock(&known);
                known.healthy.clear();
                for (id, told) in told {
                    known.healthy.extend(told.healthy.map(|healthy| (id.clone(), healthy)));
                    known.names.insert(id, told.name);
                }
            }
        })
    }

    fn is_time_to_ask(&self) -> bool {
        let mut known = self.lock();
        let is_time = known.asked_at.is_none_or(|at| at.elapsed() > RETRY);
        if is_time {
            known.asked_at = Some(Instant::now());
        }
        is_time
    }

    /// Whether a container has no name, and it is the first time that this is asked of it.
    fn has_nameless(&self, populations: &[CountKey]) -> bool {
        let ids: HashSet<String> = populations.iter().filter_map(|key| self.of(key).id).collect();
        let mut known = self.lock();
        let mut nameless = false;
        for id in ids {
            nameless |= !known.names.contains_key(&id) && known.asked.insert(id);
        }
        nameless
    }

    fn find(&self, populations: impl IntoIterator<Item = CountKey>) {
        let mount = self.mounted.path();
        let retry = if mount.is_some() { RETRY } else { RETRY_HOLDERS };
        let unknown: HashSet<CountKey> = {
            let known = self.lock();
            populations
                .into_iter()
                .filter(|key| !self.is_known(&known, key))
                .filter(|key| known.missing.get(key).is_none_or(|at| at.elapsed() > retry))
                .collect()
        };
        if unknown.is_empty() {
            return;
        }
        let paths = mount.map(cgroup::walk).unwrap_or_default();
        let by_netns = holder::containers_by_netns(self.host_netns);
        let by_service = match mount {
            Some(_) => HashMap::new(),
            // Where sockets can't be listed, nothing is known of their holders.
            None => holder::containers_by_service().unwrap_or_default(),
        };
        let mut known = self.lock();
        known.paths.extend(paths);
        known.by_netns.extend(by_netns);
        known.by_service.extend(by_service);
        known.missing.retain(|_, at| at.elapsed() <= retry);
        known.missing.extend(unknown.into_iter().map(|key| (key, Instant::now())));
    }

    fn is_known(&self, known: &Known, key: &CountKey) -> bool {
        let by_netns = known.by_netns.contains_key(&key.netns);
        match known.paths.get(&key.cgroup_id) {
            Some(path) => path != "/" || key.netns == self.host_netns || by_netns,
            // A cgroup of its own is looked for: containers may share a namespace.
            None if key.cgroup_id > ROOT => false,
            None => by_netns || known.by_service.contains_key(&holder::service_of(key)),
        }
    }

    /// What the sockets of a population belong to, as far as is known since the last refresh.
    pub fn of(&self, key: &CountKey) -> Container {
        let known = self.lock();
        let mut container = match known.paths.get(&key.cgroup_id) {
            Some(path) if path != "/" => Container::of_path(path),
            path => known.without_cgroup(key).unwrap_or_else(|| match path {
                Some(root) => Container::of_path(root),
                None => Container::unknown(key.cgroup_id),
            }),
        };
        if let Some(name) = container.id.as_ref().and_then(|id| known.names.get(id)) {
            container.name.clone_from(name);
        }
        container
    }

    /// Whether the health check of a container holds, by Docker's last word; `None` where there is none.
    pub(crate) fn is_healthy(&self, id: &str) -> Option<bool> {
        self.lock().healthy.get(id).copied()
    }

    /// The number that a population's container has in a capture: its cgroup's, or where that is the root
    /// of all and the container was told otherwise, one that stands for the container.
    pub(crate) fn number(&self, key: &CountKey) -> u64 {
        if key.cgroup_id > ROOT {
            return key.cgroup_id;
        }
        self.lock().without_cgroup(key).map_or(key.cgroup_id, |container| {
            let mut hasher = DefaultHasher::new();
            container.hash(&mut hasher);
            hasher.finish() | STAND_IN
        })
    }

    /// The network namespaces of this host, as [`netns::Known::open`] knows them; `counted` are those that
    /// sockets are counted in.
    ///
    /// # Errors
    /// As [`netns::find`].
    pub(crate) fn namespaces(&self, counted: HashSet<u32>) -> io::Result<Vec<netns::Netns>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).open(counted)
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
            .chain(known.by_service.values().flatten().cloned())
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

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // Nothing panics between two writes that belong together.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_shares_its_namespace_is_looked_for_by_its_cgroup() {
        let identity = Identity::new().unwrap();
        let sidecar = CountKey { cgroup_id: 1 << 40, netns: 7, ..CountKey::default() };
        let rootless = CountKey { cgroup_id: ROOT, ..sidecar };
        let mut known = Known::default();
        assert!(!identity.is_known(&known, &sidecar));
        known.by_netns.insert(7, Container::host());
        assert!(!identity.is_known(&known, &sidecar));
        assert!(identity.is_known(&known, &rootless));
        known.paths.insert(sidecar.cgroup_id, "/docker/sidecar".into());
        assert!(identity.is_known(&known, &sidecar));
    }
}
