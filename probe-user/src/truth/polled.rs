//! Counts from dumps of sock_diag: what works without eBPF. Connections that come and go between
//! two dumps are not seen, totals are not known, and a dump is no instant, so nothing is exact.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use probe_common::{
    connection::{Connection, class, flag},
    key::{CountKey, CountSlot},
    state::{self, role},
};
use tokio::sync::mpsc::Receiver;

use super::{
    sock_diag::{Detail, DiagSocket, dump},
    source::{Backend, Ended, Exactness, Source},
};
use crate::{
    clock,
    handshake::follow::Observed,
    identity::netns::{self, Inside, Netns},
};

/// The source that polls sock_diag.
#[derive(Debug)]
pub struct Polled {
    /// Why eBPF is not used, for [`Exactness::degraded`].
    reason: String,
}

impl Polled {
    /// `reason`: why counts are not taken from the kernel programs.
    #[must_use]
    pub fn new(reason: String) -> Self {
        Self { reason }
    }
}

impl Source for Polled {
    fn backend(&self) -> Backend {
        Backend::SockDiag
    }

    fn hooks(&self) -> Vec<String> {
        Vec::new()
    }

    fn slots(&self) -> anyhow::Result<Vec<CountSlot>> {
        let mut slots: BTreeMap<CountKey, CountSlot> = BTreeMap::new();
        for (socket, key) in keyed(&dump_all(Detail::Basic)?.sockets) {
            let slot = slots.entry(key).or_insert_with(|| CountSlot { key, ..Default::default() });
            if let Some(count) = slot.states.get_mut(usize::from(socket.state).wrapping_sub(1)) {
                *count += 1;
            }
            if socket.state == state::ESTABLISHED {
                slot.classes[usize::from(class::UNKNOWN)] += 1;
            }
        }
        Ok(slots.into_values().collect())
    }

    fn connections(&self) -> anyhow::Result<Vec<Observed>> {
        let now = u64::try_from(clock::mono_ns())?;
        Ok(keyed(&dump_all(Detail::TcpInfo)?.sockets)
            .into_iter()
            .map(|(socket, key)| connection(socket, key, now).into())
            .collect())
    }

    fn exactness(&self) -> anyhow::Result<Exactness> {
        let why = vec![format!("polling sock_diag: {}", self.reason)];
        Ok(Exactness { exact: false, detail_complete: false, degraded: why.clone(), inexact: why })
    }

    fn ended(&self) -> Option<Receiver<Ended>> {
        None
    }
}

/// The sockets of every namespace that could be entered.
#[derive(Debug)]
pub struct Dumped {
    pub sockets: Vec<DiagSocket>,
    /// Namespaces that were dumped.
    pub namespaces: HashSet<u32>,
    /// Namespaces that could not, with the reason.
    pub skipped: Vec<(u32, std::io::Error)>,
}

/// Dumps every network namespace of this host. Without `CAP_SYS_ADMIN` only the own one can be
/// entered.
///
/// # Errors
/// When not even the own namespace can be dumped.
pub fn dump_all(detail: Detail) -> anyhow::Result<Dumped> {
    let found = netns::find().context("cannot list network namespaces")?;
    dump_each(&found.namespaces, detail, |_| true)
}

/// Dumps those of these network namespaces that are wanted, by a look from inside.
///
/// # Errors
/// As [`dump_all`].
pub fn dump_each(
    namespaces: &[Netns],
    detail: Detail,
    mut is_wanted: impl FnMut(&Inside) -> bool + Send,
) -> anyhow::Result<Dumped> {
    let own = Netns::current().context("cannot read /proc/self/ns/net")?;
    let dumps = netns::in_each(namespaces, |inside| {
        is_wanted(inside).then(|| dump(inside, detail)).transpose()
    })
    .context("cannot look into network namespaces")?;
    let mut all = Dumped { sockets: Vec::new(), namespaces: HashSet::new(), skipped: Vec::new() };
    for (namespace, dumped) in namespaces.iter().zip(dumps) {
        match dumped.flatten() {
            Ok(Some(sockets)) => {
                all.sockets.extend(sockets);
                all.namespaces.insert(namespace.inode);
            }
            Ok(None) => {}
            Err(error) if namespace.inode == own.inode => {
                return Err(error).context("the kernel refuses a sock_diag dump of TCP sockets");
            }
            Err(error) => all.skipped.push((namespace.inode, error)),
        }
    }
    Ok(all)
}

/// Each socket with the population it belongs to. A socket is passive if somebody listens on its
/// local port in its namespace, else active; mini sockets have no cgroup, and take their
/// listener's.
pub fn keyed(sockets: &[DiagSocket]) -> Vec<(&DiagSocket, CountKey)> {
    let listeners: HashMap<(u32, u16), u64> = sockets
        .iter()
        .filter(|socket| socket.state == state::LISTEN)
        .map(|socket| ((socket.netns, socket.local_port), socket.cgroup_id.unwrap_or(0)))
        .collect();
    sockets
        .iter()
        .map(|socket| {
            let listener = listeners.get(&(socket.netns, socket.local_port));
            let (role, port) = match listener {
                Some(_) => (role::PASSIVE, socket.local_port),
                None => (role::ACTIVE, socket.remote_port),
            };
            let cgroup_id = socket.cgroup_id.or(listener.copied()).unwrap_or(0);
            (socket, CountKey { cgroup_id, netns: socket.netns, port, role, ready: 1 })
        })
        .collect()
}

/// The ports somebody listens on.
pub fn listening_ports(sockets: &[DiagSocket]) -> HashSet<u16> {
    sockets
        .iter()
        .filter(|socket| socket.state == state::LISTEN)
        .map(|socket| socket.local_port)
        .collect()
}

fn connection(socket: &DiagSocket, key: CountKey, now_mono_ns: u64) -> Connection {
    let info = socket.info.unwrap_or_default();
    let mut flags = flag::SEEDED;
    if socket.state == state::LISTEN {
        flags |= flag::LISTENER;
    } else if key.role == role::PASSIVE && socket.inode != 0 {
        flags |= flag::ACCEPTED;
    }
    Connection {
        cookie: socket.cookie,
        cgroup_id: key.cgroup_id,
        first_seen_ns: now_mono_ns,
        bytes_sent: info.bytes_acked,
        bytes_received: info.bytes_received,
        local_address: socket.local_address,
        remote_address: socket.remote_address,
        netns: socket.netns,
        flags,
        srtt_us: info.rtt_us,
        retransmits: info.total_retransmits,
        local_port: socket.local_port,
        remote_port: socket.remote_port,
        state: socket.state,
        role: key.role,
        family: socket.family,
        class: class::UNKNOWN,
        ..empty_connection()
    }
}

/// A connection of which nothing was seen.
pub(crate) fn empty_connection() -> Connection {
    // SAFETY: all-zero is a valid Connection: integers and arrays of them.
    let empty: Connection = unsafe { std::mem::zeroed() };
    Connection { slot: Connection::NO_SLOT, ..empty }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_known_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut ends: Vec<_> = (0..23)
            .map(|_| (TcpStream::connect(at).unwrap(), listener.accept().unwrap().0))
            .collect();
        // Seven clients leave, and the server does not notice.
        let left: Vec<_> = ends.drain(..7).map(|(_, server)| server).collect();

        let source = Polled::new("a test".into());
        let slots = source.slots().unwrap();
        let count = |wanted_role, wanted_state: u8| -> i64 {
            slots
                .iter()
                .filter(|slot| slot.key.port == at.port() && slot.key.role == wanted_role)
                .map(|slot| slot.states[usize::from(wanted_state) - 1])
                .sum()
        };
        assert_eq!(count(role::PASSIVE, state::ESTABLISHED), 16);
        assert_eq!(count(role::PASSIVE, state::CLOSE_WAIT), 7);
        assert_eq!(count(role::PASSIVE, state::LISTEN), 1);
        assert_eq!(count(role::ACTIVE, state::ESTABLISHED), 16);

        let connections = source.connections().unwrap();
        let accepted = connections
            .iter()
            .filter(|c| c.local_port == at.port() && c.state != state::LISTEN)
            .filter(|c| c.flags & flag::ACCEPTED != 0)
            .count();
        assert_eq!(accepted, 23);
        drop(left);
    }
}
