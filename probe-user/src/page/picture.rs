//! What the page is told once a second.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr};

use serde::Serialize;

use crate::{
    export::json::SCHEMA_VERSION,
    tui::{
        board::{self, Board, percentile},
        leg::STAGES,
        shards::{self, Behind},
    },
};

#[derive(Debug, Serialize)]
pub(super) struct Picture<'a> {
    schema_version: &'static str,
    at_unix_ns: i64,
    /// From when on attempts are counted: somebody looks since then.
    since_unix_ns: i64,
    exact: bool,
    degraded: &'a [String],
    reported: Vec<Reported<'a>>,
    /// Names of the places in each service's `funnel`.
    stages: [&'static str; STAGES.len()],
    services: Vec<Service<'a>>,
    /// The latest first.
    failures: Vec<Failure<'a>>,
}

#[derive(Debug, Serialize)]
struct Reported<'a> {
    url: &'a str,
    reported: Option<i64>,
    error: Option<&'a str>,
    established_min: Option<i64>,
    established_max: Option<i64>,
    phantoms: Option<i64>,
    reverse_phantoms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    /// In the page's address; stays the same from one start of a container or of the host to the next.
    id: String,
    /// The container, and what tells it apart where that is not enough.
    name: String,
    container: &'a str,
    port: u16,
    role: &'a str,
    established: i64,
    upgraded: i64,
    close_wait: i64,
    closed_held: i64,
    namespaces: usize,
    opened_per_second: f64,
    closed_per_second: f64,
    attempts: u64,
    failed: u64,
    funnel: [u64; STAGES.len()],
    outcomes: BTreeMap<Cow<'static, str>, u64>,
    /// From the SYN to the answer 101, handshakes of the last minute.
    handshake_p50_us: Option<u64>,
    handshake_p99_us: Option<u64>,
    /// What its processes connect to, in the order of ports: each is a service of its own, `active`.
    shards: Vec<Shard>,
}

#[derive(Debug, Serialize)]
struct Shard {
    /// The service that has more to tell: its `active` ends, or where several addresses have one port, that of
    /// this address if it is on this host.
    id: String,
    port: u16,
    /// Where several have one port.
    address: Option<SocketAddr>,
    /// As the health of this service calls it, else its container.
    name: Option<String>,
    /// What that health says of it.
    reported: Option<i64>,
    established: i64,
    upgraded: i64,
    attempts: u64,
    failed: u64,
    handshake_p50_us: Option<u64>,
    handshake_p99_us: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    at_unix_ns: i64,
    name: String,
    container: &'a str,
    port: u16,
    role: &'a str,
    outcome: &'a str,
    peer: &'a str,
    last_stage: &'static str,
}

fn id(service: &board::Service, host_netns: u32) -> String {
    let board::Service { container, port, role, netns } = service;
    let id = format!("{container}:{port}:{role}");
    if [0, host_netns].contains(netns) { id } else { format!("{id}:{netns}") }
}

impl Shard {
    fn new(shard: &shards::Shard, host_netns: u32) -> Self {
        Self {
            id: id(&shard.service, host_netns),
            port: shard.port,
            address: shard.address,
            name: shard.name().map(str::to_owned),
            reported: shard.said.as_ref().map(|said| said.connections),
            established: shard.established,
            upgraded: shard.upgraded,
            attempts: shard.tally.attempts,
            failed: shard.tally.failed,
            handshake_p50_us: shard.p50_us,
            handshake_p99_us: shard.p99_us,
        }
    }
}

impl<'a> Picture<'a> {
    /// `host_netns`: the namespace of what is in no container and needs no further name.
    pub(super) fn new(board: &'a Board, since_unix_ns: i64, host_netns: u32) -> Self {
        let tallies = board.tallies();
        let behind = Behind::new(board, &tallies);
        let services = board.lines.iter().map(|(service, line)| {
            let tally = tallies.get(service).cloned().unwrap_or_default();
            let shards = behind.of(service);
            let times = behind.times.get(service).map(Vec::as_slice).unwrap_or_default();
            Service {
                id: id(service, host_netns),
                name: board.name(service),
                container: &service.container,
                port: service.port,
                role: &service.role,
                established: line.level.established,
                upgraded: line.level.upgraded,
                close_wait: line.level.close_wait,
                closed_held: line.level.closed_held,
                namespaces: line.level.namespaces,
                opened_per_second: line.opened_rate,
                closed_per_second: line.closed_rate,
                attempts: tally.attempts,
                failed: tally.failed,
                funnel: tally.funnel,
                outcomes: tally.outcomes,
                handshake_p50_us: percentile(times, 50.0),
                handshake_p99_us: percentile(times, 99.0),
                shards: shards.iter().map(|shard| Shard::new(shard, host_netns)).collect(),
            }
        });
        Self {
            schema_version: SCHEMA_VERSION,
            at_unix_ns: board.at_unix_ns,
            since_unix_ns,
            exact: board.exact,
            degraded: &board.degraded,
            stages: STAGES,
            services: services.collect(),
            reported: board
                .reported
                .iter()
                .map(|reported| Reported {
                    url: &reported.url,
                    reported: reported.answer.as_ref().ok().copied(),
                    error: reported.answer.as_ref().err().map(String::as_str),
                    established_min: reported.kernel_min,
                    established_max: reported.kernel_max,
                    phantoms: reported.phantoms(),
                    reverse_phantoms: reported.reverse(),
                })
                .collect(),
            failures: board
                .latest
                .iter()
                .map(|failure| Failure {
                    at_unix_ns: board.at_unix_ns - (board.at_mono_ns - failure.at_ns).max(0),
                    name: board.name(&failure.service),
                    container: &failure.service.container,
                    port: failure.service.port,
                    role: &failure.service.role,
                    outcome: &failure.outcome,
                    peer: &failure.peer,
                    last_stage: failure.stage,
                })
                .collect(),
        }
    }
}
