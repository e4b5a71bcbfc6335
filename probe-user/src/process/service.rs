//! Services: the processes that listen on a port that is watched, found again when they change.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    facts::{Facts, KillCount},
    listener::listeners,
};
use crate::{clock, filter::Filter, identity::Identity};

/// A look at every descriptor of the host finds who listens, which is not free.
const FIND_EVERY: Duration = Duration::from_secs(10);

/// How many times the processor time of a look lies between two: it goes through every descriptor,
/// and takes a tenth of a second where a server has twenty thousand.
const REST: u32 = 20;

/// More services than this are a host, not a server that is watched.
const MOST: usize = 32;

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// The container's name, or the process's.
    name: String,
    container: Option<String>,
    pids: Vec<u32>,
    /// Kept when they are gone: that may be why.
    kills: Option<KillCount>,
}

/// What is read of one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ServiceFacts {
    pub(crate) name: String,
    pub(crate) port: u16,
    #[serde(flatten)]
    pub(crate) facts: Facts,
    /// Whether Docker's health check holds; null without one.
    pub(crate) container_healthy: Option<bool>,
}

impl ServiceFacts {
    /// As [`Facts::named`], and what Docker says.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        let mut named = self.facts.named();
        named.extend(self.container_healthy.map(|yes| ("container_healthy", f64::from(yes))));
        named
    }
}

/// Every service that was ever found, by its lowest port and its network namespace.
#[derive(Debug)]
pub(crate) struct Services {
    filter: Filter,
    identity: Arc<Identity>,
    known: BTreeMap<(u16, u32), Service>,
    found: Option<Instant>,
    /// Processor time of the last look at those that are known.
    looked: Duration,
}

impl Services {
    pub(crate) fn new(filter: Filter, identity: Arc<Identity>) -> Self {
        Self { filter, identity, known: BTreeMap::new(), found: None, looked: Duration::ZERO }
    }

    /// Reads all of them now; one whose processes are gone has 0 of them. Blocks for milliseconds.
    pub(crate) fn read(&mut self) -> anyhow::Result<Vec<ServiceFacts>> {
        let mut facts = self.facts();
        let is_old = self.found.is_none_or(|found| found.elapsed() >= FIND_EVERY);
        let is_changed = facts
            .iter()
            .zip(self.known.values())
            .any(|(facts, service)| facts.facts.processes < service.pids.len().max(1) as u64);
        if is_old || is_changed {
            self.find()?;
            facts = self.facts();
        }
        Ok(facts)
    }

    /// How long not to read again, for who reads all the time.
    pub(crate) fn rest(&self) -> Duration {
        self.looked * REST
    }

    fn facts(&mut self) -> Vec<ServiceFacts> {
        let before = clock::thread_cpu();
        let facts = |(&(port, netns), service): (&(u16, u32), &Service)| ServiceFacts {
            name: self.name_of(port, netns, service),
            port,
            facts: Facts::of(&service.pids, service.kills.as_ref()),
            container_healthy: service
                .container
                .as_ref()
                .and_then(|id| self.identity.is_healthy(id)),
        };
        let all = self.known.iter().map(facts).collect();
        self.looked = clock::thread_cpu() - before;
        all
    }

    /// Two of one name on one port are told apart by their namespace.
    fn name_of(&self, port: u16, netns: u32, service: &Service) -> String {
        let mut others = self.known.range((port, 0)..(port, netns));
        if others.any(|(_, other)| other.name == service.name) {
            format!("{} in netns {netns}", service.name)
        } else {
            service.name.clone()
        }
    }

    fn find(&mut self) -> anyhow::Result<()> {
        let mut now: BTreeMap<(u16, u32), Service> = BTreeMap::new();
        for (key, holders) in listeners(|key| self.filter.keeps_of(key, &self.identity))? {
            let Some(first) = holders.first() else { continue };
            let container = self.identity.of(&key);
            let name = if container.id.is_some() { container.name } else { first.comm.clone() };
            let service = now.entry((key.port, key.netns)).or_insert_with(|| Service {
                name,
                container: container.id,
                pids: Vec::new(),
                kills: KillCount::of(first.pid),
            });
            service.pids.extend(holders.iter().map(|holder| holder.pid));
            service.pids.sort_unstable();
            service.pids.dedup();
        }
        // One that listens on several ports is one service.
        let mut seen: HashSet<Vec<u32>> = HashSet::new();
        now.retain(|_, service| seen.insert(service.pids.clone()));
        for service in self.known.values_mut() {
            service.pids.clear();
        }
        self.known.extend(now);
        while self.known.len() > MOST {
            self.known.pop_last();
        }
        self.found = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What another server on the same port in a namespace of its own uses is not this one's.
    #[test]
    fn one_port_in_two_namespaces_is_two_services() {
        let mut services = Services::new(Filter::default(), Arc::new(Identity::new().unwrap()));
        let service =
            |pid| Service { name: "web".to_owned(), container: None, pids: vec![pid], kills: None };
        let me = std::process::id();
        services.known = BTreeMap::from([((80, 7), service(me)), ((80, 9), service(u32::MAX))]);
        let facts = services.facts();
        let told: Vec<(&str, u64)> =
            facts.iter().map(|one| (one.name.as_str(), one.facts.processes)).collect();
        assert_eq!(told, [("web", 1), ("web in netns 9", 0)]);
    }

    #[test]
    fn who_listens_is_found_and_missed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let filter = Filter { ports: port.to_string().parse().unwrap(), ..Filter::default() };
        let mut services = Services::new(filter, Arc::new(Identity::new().unwrap()));
        let found = services.read().unwrap();
        assert_eq!((found.len(), found[0].port, found[0].facts.processes), (1, port, 1));
        drop(listener);
        services.find().unwrap();
        let gone = services.read().unwrap();
        assert_eq!((gone.len(), gone[0].facts.processes), (1, 0));
    }
}
