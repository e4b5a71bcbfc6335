//! What the page is told once a second.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use crate::{
    export::json::SCHEMA_VERSION,
    tui::{
        board::{Board, percentile},
        leg::STAGES,
        shards,
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
    port: u16,
    /// What the health of this service says of it.
    name: Option<String>,
    reported: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    at_unix_ns: i64,
    container: &'a str,
    port: u16,
    role: &'a str,
    outcome: &'a str,
    peer: &'a str,
    last_stage: &'static str,
}

impl Shard {
    fn new(shard: shards::Shard) -> Self {
        let (name, reported) = shard.said.map(|said| (said.name, said.connections)).unzip();
        Self { port: shard.service.port, name, reported }
    }
}

impl<'a> Picture<'a> {
    pub(super) fn new(board: &'a Board, since_unix_ns: i64) -> Self {
        let mut tallies = board.tallies();
        let times = board.times();
        let services = board.lines.iter().map(|(service, line)| {
            let tally = tallies.remove(service).unwrap_or_default();
            let times = times.get(service).map(Vec::as_slice).unwrap_or_default();
            Service {
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
                shards: shards::of(board, service).into_iter().map(Shard::new).collect(),
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
