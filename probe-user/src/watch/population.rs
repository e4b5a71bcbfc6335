//! The connections that a server's report is held against: those to its ports, of one role, in its
//! container. A proxy in front of the container on this host (docker-proxy) is not the server.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use probe_common::{
    connection::class,
    key::{CountKey, CountSlot},
    state::{self, role},
};

use super::bracket::Level;
use crate::{
    clock,
    error::Error,
    filter::{Filter, Ports, Role},
    identity::{
        Identity,
        process::{self, Holders},
    },
    truth::{
        polled::{Dumped, dump_all, keyed, listening_ports},
        sock_diag::{Detail, DiagSocket, Peer},
        source::{Backend, Source},
    },
};

/// Processes that listen on a container's published port and pass it on.
const HOPS: [&str; 2] = ["docker-proxy", "rootlessport"];

pub(crate) struct Population {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) identity: Arc<Identity>,
    filter: Filter,
    /// The port that is asked.
    asked: Option<u16>,
    /// Ports of shards, see [`Population::leave_out`].
    shards: Mutex<BTreeSet<u16>>,
    /// (namespace, port) of published ports.
    hops: HashSet<(u32, u16)>,
    /// Of the port that is asked.
    listeners: Mutex<Holders>,
    /// Whether a key belongs, so that a count takes no parsing of paths.
    members: Mutex<HashMap<CountKey, bool>>,
}

impl Population {
    /// `asked`: the health URL's port, taken where the filter has no ports.
    pub(crate) fn new(
        source: Arc<dyn Source>,
        identity: Arc<Identity>,
        mut filter: Filter,
        asked: Option<u16>,
    ) -> anyhow::Result<Self> {
        if let (true, Some(port)) = (filter.ports.is_empty(), asked) {
            filter.ports = Ports::one(port);
        }
        if filter.roles.is_empty() {
            filter.roles = vec![Role::Passive];
        }
        let hops = hops(&dump_all(Detail::Basic)?, &filter);
        let (shards, listeners, members) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { source, identity, filter, asked, shards, hops, listeners, members })
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The network namespaces in which somebody listens. Refuses ports on which nobody does, since a count
    /// of them would be 0 for ever.
    pub(crate) fn check_ports(&self) -> anyhow::Result<BTreeSet<u32>> {
        if !self.filter.roles.contains(&Role::Passive) || self.filter.ports.is_empty() {
            return Ok(BTreeSet::new());
        }
        let dumped = dump_all(Detail::Basic)?;
        let listeners: Vec<CountKey> = keyed(&dumped.sockets)
            .into_iter()
            .filter(|(socket, key)| {
                socket.state == state::LISTEN && self.filter.ports.contains(key.port)
            })
            .map(|(_, key)| key)
            .collect();
        let ours = listeners.iter().filter(|key| self.contains(key));
        let namespaces: BTreeSet<u32> = ours.map(|key| key.netns).collect();
        if !namespaces.is_empty() {
            return Ok(namespaces);
        }
        let ports = &self.filter.ports;
        let error = if listeners.is_empty() {
            let known: BTreeSet<u16> = listening_ports(&dumped.sockets).into_iter().collect();
            let next = match known.is_empty() {
                true => "nor on any other port: start the server first".to_owned(),
                false => format!("somebody listens on: {} (choose with --port)", first_few(&known)),
            };
            Error::input(format!("nobody listens on port {ports} of this host"), next)
        } else if self.filter.containers.is_empty() {
            Error::input(
                format!("port {ports} is only the published port of a container"),
                "name the container, and the port inside it: --container NAME --port PORT",
            )
        } else {
            let names: BTreeSet<String> =
                listeners.iter().map(|key| self.identity.of(key).name).collect();
            let names: Vec<String> = names.into_iter().collect();
            Error::input(
                format!("{} does not listen on port {ports}", self.filter.containers.join(", ")),
                format!("on that port listens: {}", names.join(", ")),
            )
        };
        Err(error.into())
    }

    /// Published ports that were left out, for a line to the user.
    pub(crate) fn left_out(&self) -> Vec<u16> {
        let ports: BTreeSet<u16> = self.hops.iter().map(|&(_, port)| port).collect();
        ports.into_iter().collect()
    }

    /// Whether connections are told by what they are used for.
    pub(crate) fn knows_classes(&self) -> bool {
        self.source.hooks().iter().any(|hook| hook == "cgroup_skb/egress")
    }

    /// True for a connection to a published port, which its proxy passes on.
    pub(crate) fn is_hop(&self, socket: &DiagSocket) -> bool {
        self.hops.contains(&(socket.netns, socket.local_port))
    }

    /// Asks Docker again, and forgets what was decided by the names of before.
    pub(crate) async fn refresh(&self) -> anyhow::Result<()> {
        let slots = self.source.slots()?;
        self.identity.refresh(slots.iter().map(|slot| slot.key)).await;
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// The ports among those of interest to which the processes behind the asked port connect themselves:
    /// they pass their clients on.
    pub(crate) fn passed_on(&self) -> anyhow::Result<BTreeSet<u16>> {
        let dumped = dump_all(Detail::Basic)?;
        let mut listeners = HashSet::new();
        let mut upstream = HashMap::new();
        for (socket, key) in keyed(&dumped.sockets) {
            let is_asked = Some(key.port) == self.asked;
            if is_asked && socket.state == state::LISTEN && self.contains(&key) {
                listeners.insert(socket.inode);
            } else if !is_asked && key.role == role::ACTIVE && self.filter.ports.contains(key.port)
            {
                upstream.insert(socket.inode, key.port);
            }
        }
        if listeners.is_empty() || upstream.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut holders = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let held = holders.of(&listeners).iter().flat_map(|&pid| process::sockets(pid));
        Ok(held.filter_map(|inode| upstream.get(&inode).copied()).collect())
    }

    /// What the server that is asked passes its clients on to has connections of its own, which it does not
    /// report, although their ports are among those of interest. True if that is new.
    pub(crate) fn leave_out(&self, ports: impl Iterator<Item = u16>) -> bool {
        if !self.asked.is_some_and(|asked| self.filter.ports.contains(asked)) {
            return false;
        }
        let ports =
            ports.filter(|port| Some(*port) != self.asked && self.filter.ports.contains(*port));
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shards.len();
        shards.extend(ports);
        let is_new = shards.len() > before;
        if is_new {
            self.members.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        is_new
    }

    pub(crate) fn contains(&self, key: &CountKey) -> bool {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        *members.entry(*key).or_insert_with(|| {
            let hop = self.hops.contains(&(key.netns, key.port)) || shards.contains(&key.port);
            self.filter.keeps_of(key, &self.identity) && !(key.role == role::PASSIVE && hop)
        })
    }

    /// The slots of this population.
    pub(crate) fn slots(&self) -> anyhow::Result<Vec<CountSlot>> {
        let mut slots = self.source.slots()?;
        slots.retain(|slot| self.contains(&slot.key));
        Ok(slots)
    }

    /// Established connections whose peers have left two probes or retransmissions unanswered.
    pub(crate) fn silent(&self) -> anyhow::Result<i64> {
        let dumped = dump_all(Detail::TcpInfo)?;
        let is_silent = |socket: &DiagSocket| {
            socket.state == state::ESTABLISHED
                && socket.info.is_some_and(|info| info.peer() == Peer::Silent)
        };
        let found = keyed(&dumped.sockets)
            .into_iter()
            .filter(|(socket, key)| is_silent(socket) && self.contains(key));
        Ok(found.count() as i64)
    }

    /// The count now.
    pub(crate) fn level(&self) -> anyhow::Result<Level> {
        let slots = self.slots()?;
        let sum = |state: u8| slots.iter().map(|slot| slot.states[usize::from(state) - 1]).sum();
        let knows_totals = self.source.backend() == Backend::Ebpf;
        let of_class =
            |class: u8| -> i64 { slots.iter().map(|slot| slot.classes[usize::from(class)]).sum() };
        let plain_http = of_class(class::HTTP);
        // Where connections upgrade, one that has said nothing yet is not a WebSocket: a poll, or a
        // handshake under way. Where none does, the service speaks another protocol.
        let not_yet = if of_class(class::UPGRADED) > 0 { of_class(class::SILENT) } else { 0 };
        Ok(Level {
            mono_ns: clock::mono_ns(),
            established: sum(state::ESTABLISHED) - plain_http - not_yet,
            plain_http,
            close_wait: sum(state::CLOSE_WAIT),
            closed_held: sum(state::CLOSE),
            opened: if knows_totals {
                slots.iter().map(|slot| slot.established_total).sum()
            } else {
                0
            },
        })
    }
}

/// As many ports as a reader may want to choose from.
fn first_few(ports: &BTreeSet<u16>) -> String {
    const FEW: usize = 20;
    let mut text: Vec<String> = ports.iter().take(FEW).map(u16::to_string).collect();
    if ports.len() > FEW {
        text.push(format!("and {} more", ports.len() - FEW));
    }
    text.join(", ")
}

/// Where docker-proxy and its like listen on the ports of interest.
fn hops(dumped: &Dumped, filter: &Filter) -> HashSet<(u32, u16)> {
    let listeners: HashMap<u32, (u32, u16)> = dumped
        .sockets
        .iter()
        .filter(|socket| {
            socket.state == state::LISTEN
                && !filter.ports.is_empty()
                && filter.ports.contains(socket.local_port)
        })
        .map(|socket| (socket.inode, (socket.netns, socket.local_port)))
        .collect();
    process::owners(&listeners.keys().copied().collect())
        .into_iter()
        .filter(|(_, owners)| owners.iter().any(|owner| HOPS.contains(&owner.comm.as_str())))
        .filter_map(|(inode, _)| listeners.get(&inode).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_ports_the_first_are_named() {
        assert_eq!(first_few(&(1..=3).collect()), "1, 2, 3");
        let many = first_few(&(20_000..28_000).collect());
        assert!(many.starts_with("20000, 20001, "), "{many}");
        assert!(many.ends_with("20019, and 7980 more"), "{many}");
    }
}
