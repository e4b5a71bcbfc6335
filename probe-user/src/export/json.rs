//! The JSON of `probe count`, `probe connections`, `/v1/counts` and `/v1/connections`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use probe_common::{
    connection::{Connection, class},
    key::{CountKey, CountSlot},
    state::{self, role},
};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{self, Pair},
    filter::Filter,
    identity::{Identity, cgroup::Container, process::Owner},
    truth::{
        sock_diag::{DiagSocket, Peer},
        source::{Backend, Exactness},
    },
};

/// Version of every JSON document that the probe prints. Fields may be added within a major one.
pub(crate) const SCHEMA_VERSION: &str = "1.0";

/// What an agent answers instead where it refuses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) schema_version: String,
    pub(crate) error: String,
    /// What to do, where it is the asker's fault.
    pub(crate) next: Option<String>,
}

/// Counts of one moment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) schema_version: Cow<'static, str>,
    pub(crate) at_unix_ns: i64,
    pub(crate) backend: Backend,
    pub(crate) exact: bool,
    pub(crate) degraded: Vec<String>,
    /// Of those, why counts are not exact.
    #[serde(default)]
    pub(crate) inexact: Vec<String>,
    pub(crate) counts: Vec<CountRow>,
}

/// One population.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CountRow {
    pub(crate) cgroup_id: u64,
    pub(crate) container: Container,
    pub(crate) netns: u32,
    pub(crate) port: u16,
    pub(crate) role: Cow<'static, str>,
    pub(crate) established: i64,
    /// Since the programs were attached; null where sock_diag is polled, and for active sockets.
    pub(crate) accepted: Option<u64>,
    /// Established since the programs were attached, those that were there before not included; null
    /// where sock_diag is polled.
    pub(crate) established_total: Option<u64>,
    /// Over since the programs were attached, and no process holds a descriptor of them; also those
    /// that were never established.
    pub(crate) closed_total: Option<u64>,
    pub(crate) states: BTreeMap<Cow<'static, str>, i64>,
    /// Established ones by what their first bytes said.
    pub(crate) classes: BTreeMap<Cow<'static, str>, i64>,
}

impl Counts {
    pub(crate) fn new(
        slots: &[CountSlot],
        backend: Backend,
        exactness: Exactness,
        identity: &Identity,
        filter: &Filter,
    ) -> Self {
        let mut counts: Vec<CountRow> = slots
            .iter()
            .filter_map(|slot| CountRow::new(slot, backend, identity, filter))
            .collect();
        counts.sort_by(|a, b| {
            (&a.container.name, a.port, &a.role, a.cgroup_id, a.netns).cmp(&(
                &b.container.name,
                b.port,
                &b.role,
                b.cgroup_id,
                b.netns,
            ))
        });
        Self {
            schema_version: SCHEMA_VERSION.into(),
            at_unix_ns: clock::unix_ns(),
            backend,
            exact: exactness.exact,
            degraded: exactness.degraded,
            inexact: exactness.inexact,
            counts,
        }
    }
}

impl CountRow {
    /// `None` if the filter drops it, or nothing was ever counted in it.
    fn new(
        slot: &CountSlot,
        backend: Backend,
        identity: &Identity,
        filter: &Filter,
    ) -> Option<Self> {
        let key = &slot.key;
        let container = identity.of(key);
        if !filter.keeps(key, &container) {
            return None;
        }
        let states: BTreeMap<Cow<'static, str>, i64> = (1u8..)
            .zip(slot.states)
            .filter(|&(state, count)| count != 0 && filter.keeps_state(state))
            .map(|(state, count)| (state::state_name(state).into(), count))
            .collect();
        let ever =
            filter.states.is_empty() && (slot.established_total > 0 || slot.closed_total > 0);
        (ever || !states.is_empty()).then(|| Self {
            cgroup_id: key.cgroup_id,
            container,
            netns: key.netns,
            port: key.port,
            role: role::name(key.role).into(),
            established: slot.states[usize::from(state::ESTABLISHED) - 1],
            accepted: (backend == Backend::Ebpf && key.role != role::ACTIVE)
                .then_some(slot.accepted_total),
            established_total: (backend == Backend::Ebpf).then_some(slot.established_total),
            closed_total: (backend == Backend::Ebpf).then_some(slot.closed_total),
            states,
            classes: class::NAMES
                .into_iter()
                .zip(slot.classes)
                .filter(|&(_, count)| count != 0)
                .map(|(class, count)| (class.into(), count))
                .collect(),
        })
    }
}

/// One connection, with what a dump of sock_diag adds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionJson {
    pub(crate) cookie: u64,
    pub(crate) generation: u32,
    pub(crate) netns: u32,
    pub(crate) cgroup_id: u64,
    pub(crate) container: Container,
    pub(crate) role: Cow<'static, str>,
    pub(crate) port: u16,
    pub(crate) state: Cow<'static, str>,
    pub(crate) local_address: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_address: IpAddr,
    pub(crate) remote_port: u16,
    pub(crate) class: Cow<'static, str>,
    /// Since it was established; null if that was before the programs were attached.
    pub(crate) age_ms: Option<u64>,
    pub(crate) established_unix_ns: Option<i64>,
    pub(crate) accepted: bool,
    pub(crate) bytes_sent: Option<u64>,
    pub(crate) bytes_received: Option<u64>,
    pub(crate) srtt_us: Option<u32>,
    pub(crate) retransmits: Option<u32>,
    /// Processes that hold the socket now.
    pub(crate) processes: Vec<Owner>,
    pub(crate) uid: Option<u32>,
    pub(crate) inode: Option<u32>,
    pub(crate) unacked_segments: Option<u32>,
    /// Probes and retransmissions that the peer has not answered.
    pub(crate) unanswered_probes: Option<u32>,
    pub(crate) last_heard_ms: Option<u32>,
    /// `live`, `idle`, or `silent` after two unanswered probes; null unless established.
    pub(crate) peer: Option<Peer>,
}

/// The document of `/v1/connections`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionList {
    pub(crate) schema_version: Cow<'static, str>,
    pub(crate) connections: Vec<ConnectionJson>,
}

/// Where a key's port lies in a connection: local of a passive, remote of an active one.
pub(crate) fn service_port(connection: &Connection) -> u16 {
    if connection.role == role::ACTIVE { connection.remote_port } else { connection.local_port }
}

/// The population a connection belongs to.
pub(crate) fn key_of(connection: &Connection) -> CountKey {
    CountKey {
        cgroup_id: connection.cgroup_id,
        netns: connection.netns,
        port: service_port(connection),
        role: connection.role,
        ready: 1,
    }
}

/// v4-mapped addresses as IPv4.
pub(crate) fn address(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

impl ConnectionJson {
    pub(crate) fn new(
        connection: &Connection,
        diag: Option<&DiagSocket>,
        processes: Vec<Owner>,
        container: Container,
        now: Pair,
    ) -> Self {
        let established =
            i64::try_from(connection.established_ns).ok().filter(|&established| established != 0);
        let info = diag.and_then(|diag| diag.info);
        Self {
            cookie: connection.cookie,
            generation: connection.generation,
            netns: connection.netns,
            cgroup_id: connection.cgroup_id,
            container,
            role: role::name(connection.role).into(),
            port: service_port(connection),
            state: state::state_name(connection.state).into(),
            local_address: address(connection.local_address),
            local_port: connection.local_port,
            remote_address: address(connection.remote_address),
            remote_port: connection.remote_port,
            class: class::NAMES
                .get(usize::from(connection.class))
                .copied()
                .unwrap_or("unknown")
                .into(),
            age_ms: established.map(|at| ((now.mono_ns - at).max(0) / 1_000_000) as u64),
            established_unix_ns: established.map(|at| now.unix_of(at)),
            accepted: connection.is_accepted()
                || connection.role == role::PASSIVE && diag.is_some_and(|diag| diag.inode != 0),
            bytes_sent: info.map(|info| info.bytes_acked),
            bytes_received: info.map(|info| info.bytes_received),
            srtt_us: info.map(|info| info.rtt_us),
            retransmits: info.map(|info| info.total_retransmits),
            processes,
            uid: diag.map(|diag| diag.uid),
            inode: diag.map(|diag| diag.inode),
            unacked_segments: info.map(|info| info.unacked),
            unanswered_probes: info.map(|info| info.unanswered()),
            last_heard_ms: info.map(|info| info.last_heard_ms()),
            peer: info.filter(|_| connection.state == state::ESTABLISHED).map(|info| info.peer()),
        }
    }
}
