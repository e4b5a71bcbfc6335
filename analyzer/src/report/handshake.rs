//! Handshakes as data: funnel, stages, outcomes over time, causes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use crate::both::both;
use crate::client::spread::Spread;
use crate::handshake::attempt::{Attempt, Attempts, RESPONSE, SYN, UPGRADE};
use crate::handshake::legs::{Legs, Upstream};
use crate::handshake::outcome::{OPEN, UPGRADED};
use crate::handshake::stage::{Reached, Step, reached, steps};
use crate::input::connections::{Address, Number, Word};
use crate::input::recording::Recording;
use crate::join::pollers;
use crate::lives::{Life, Lives};
use crate::population::Population;
use crate::report::model::Magnitude;
use crate::rule::handshake::{Case, Cause, causes};

/// Examples per outcome and cause.
const EXAMPLES: usize = 5;
/// Intervals over which outcomes are counted.
const BUCKETS: i64 = 60;

/// Handshakes of one capture.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct HandshakeReport {
    pub(crate) capture: String,
    /// On legs that clients made; a proxy's own are not counted again.
    pub(crate) attempts: usize,
    pub(crate) upgraded: usize,
    pub(crate) failed: usize,
    pub(crate) open: usize,
    pub(crate) failed_percent: Option<f64>,
    /// Established by a SYN cookie: the queue of waiting SYNs was full, or cookies are always sent.
    pub(crate) syn_cookies: usize,
    /// Requests that asked for no upgrade: not attempts.
    pub(crate) plain_http: usize,
    /// Connections of which neither request nor outcome is known.
    pub(crate) untold: usize,
    pub(crate) links: Links,
    pub(crate) services: Vec<ServiceHandshakes>,
    pub(crate) causes: Vec<RankedCause>,
    pub(crate) over_time: Vec<Bucket>,
    /// From the SYN to the answer's first byte, of upgraded connections that clients made.
    #[serde(skip)]
    pub(crate) connect: Spread,
    /// Of these, in the server's words.
    #[serde(skip)]
    pub(crate) bytes_received: u64,
    #[serde(skip)]
    pub(crate) bytes_sent: u64,
    /// Of all attempts, the most first.
    #[serde(skip)]
    pub(crate) outcomes: Vec<(String, usize)>,
    /// When the first and the last attempt began.
    #[serde(skip)]
    pub(crate) span_unix_ns: Option<(i64, i64)>,
}

/// One client's attempt, with what was made of it.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct NamedAttempt {
    #[serde(flatten)]
    pub(crate) pair: Pair,
    pub(crate) started_unix_ns: i64,
    pub(crate) outcome: String,
    /// `null` unless it failed.
    pub(crate) cause: Option<&'static str>,
    /// Port of the shard that it was passed on to.
    pub(crate) upstream_port: Option<u32>,
    pub(crate) upstream_outcome: Option<String>,
}

/// How attempts at a proxy are linked with its upstream connections.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Links {
    pub(crate) linked: usize,
    pub(crate) certain: usize,
    /// At a proxy, and without an upstream connection.
    pub(crate) never_tried: usize,
}

/// One port of one container, seen from one end.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ServiceHandshakes {
    pub(crate) container: String,
    pub(crate) port: u32,
    pub(crate) role: &'static str,
    pub(crate) attempts: usize,
    pub(crate) funnel: Vec<Reached>,
    /// Of those that were upgraded.
    pub(crate) steps: Vec<Step>,
    pub(crate) retransmitted: usize,
    pub(crate) outcomes: Vec<OutcomeCount>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct OutcomeCount {
    pub(crate) outcome: String,
    pub(crate) count: usize,
    pub(crate) percent: f64,
    pub(crate) first_unix_ns: i64,
    pub(crate) last_unix_ns: i64,
    pub(crate) examples: Vec<Pair>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct RankedCause {
    #[serde(flatten)]
    pub(crate) cause: Cause,
    /// Of all failures.
    pub(crate) percent: f64,
    pub(crate) examples: Vec<Pair>,
}

/// What `ss` and tcpdump can be asked by.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Pair {
    pub(crate) remote_address: String,
    pub(crate) remote_port: u32,
    pub(crate) local_address: String,
    pub(crate) local_port: u32,
    pub(crate) cookie: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct Bucket {
    pub(crate) at_unix_ns: i64,
    pub(crate) attempts: usize,
    pub(crate) failed: usize,
}

/// For thresholds. Nothing attempted is nothing to judge.
pub(crate) fn failed(report: &HandshakeReport) -> Magnitude {
    Magnitude {
        peak: (report.attempts > 0).then_some(report.failed as i64),
        peak_percent: report.failed_percent,
        at_end: None,
    }
}

/// What is known of a recording's handshakes.
struct Known<'a> {
    attempts: &'a Attempts<'a>,
    legs: &'a Legs,
}

fn with_known<T>(
    recording: &Recording,
    population: &Population,
    then: impl FnOnce(&Known<'_>) -> T,
) -> T {
    let connections = &recording.connections;
    let attempts = Attempts::new(recording, &population.members(connections));
    let legs = Legs::new(&attempts, connections);
    then(&Known { attempts: &attempts, legs: &legs })
}

pub(crate) fn of(recording: &Recording, population: &Population) -> HandshakeReport {
    with_known(recording, population, |known| report(recording, known))
}

/// When each attempt began, in Unix nanoseconds. Of a service without any, each connection is one.
pub(crate) fn starts_unix_ns(recording: &Recording, population: &Population) -> Vec<i64> {
    let connections = &recording.connections;
    let mut starts: Vec<i64> = with_known(recording, population, |known| {
        let front = known.legs.front.iter();
        front.map(|index| known.attempts.get(*index).start_ns()).collect()
    });
    if starts.is_empty() {
        let pollers = pollers(&recording.health).unwrap_or_default();
        let lives = Lives::new(connections, &population.members(connections), &pollers);
        let passive =
            |life: &&Life| connections.word(Word::Role, life.row as usize) == Some("passive");
        let counted = lives.iter().filter(|life| life.counted).filter(passive);
        let began = counted.map(|life| life.established_from_ns);
        starts.extend(began.filter(|at| *at > i64::MIN));
    }
    starts.into_iter().map(|at| recording.clock.unix_ns(at)).collect()
}

/// Every attempt by name.
pub(crate) fn named(recording: &Recording, population: &Population) -> Vec<NamedAttempt> {
    with_known(recording, population, |known| {
        let case = Case::new(recording, known.attempts, known.legs);
        name(recording, known, &causes(&case))
    })
}

fn report(recording: &Recording, known: &Known<'_>) -> HandshakeReport {
    let (attempts, legs) = (known.attempts, known.legs);
    let front = || legs.front.iter().map(|index| attempts.get(*index));
    let failed = front().filter(|attempt| attempt.failed()).count();
    let total = legs.front.len();
    let egress = recording.meta.hooks.iter().any(|hook| hook == "cgroup_skb/egress");
    let outcomes = tally(front());
    let with = |outcome: &str| {
        outcomes.iter().find(|(found, _)| found == outcome).map_or(0, |(_, count)| *count)
    };
    let (mut connect, mut bytes_received, mut bytes_sent) = (Spread::default(), 0_u64, 0_u64);
    for attempt in front().filter(|attempt| attempt.passive() && attempt.at(UPGRADE).is_some()) {
        let bytes = |number| recording.connections.number(number, attempt.row()).unwrap_or(0);
        bytes_received = bytes_received.saturating_add(bytes(Number::BytesReceived));
        bytes_sent = bytes_sent.saturating_add(bytes(Number::BytesSent));
        if let (Some(syn), Some(response)) = (attempt.at(SYN), attempt.at(RESPONSE)) {
            connect.record_ms((response - syn) as f64 / 1e6);
        }
    }
    let ranked = |cause: Cause| {
        let examples = cause.explains.iter().take(EXAMPLES);
        RankedCause {
            percent: 100.0 * cause.count as f64 / failed as f64,
            examples: examples.map(|i| pair(recording, attempts.get(*i).row())).collect(),
            cause,
        }
    };
    let (causes, services) = both(
        || causes(&Case::new(recording, attempts, legs)).into_iter().map(ranked).collect(),
        || services(recording, known),
    );
    HandshakeReport {
        capture: recording.name.clone(),
        attempts: total,
        upgraded: with(UPGRADED),
        failed,
        open: with(OPEN),
        failed_percent: (total > 0).then(|| 100.0 * failed as f64 / total as f64),
        syn_cookies: front().filter(|attempt| attempt.by_syn_cookie(egress)).count(),
        plain_http: attempts.plain_http,
        untold: attempts.untold,
        links: Links {
            linked: legs.linked,
            certain: legs.certain,
            never_tried: legs
                .front
                .iter()
                .filter(|index| legs.upstream(**index) == Upstream::NeverTried)
                .count(),
        },
        services,
        causes,
        over_time: over_time(recording, known),
        connect,
        bytes_received,
        bytes_sent,
        outcomes,
        span_unix_ns: span(front())
            .map(|(first, last)| (recording.clock.unix_ns(first), recording.clock.unix_ns(last))),
    }
}

/// How many had each outcome, the most first.
fn tally<'a>(attempts: impl Iterator<Item = Attempt<'a>>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in attempts {
        *counts.entry(attempt.outcome()).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> =
        counts.into_iter().map(|(outcome, count)| (outcome.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// Monotonic start of the first and the last.
fn span<'a>(attempts: impl Iterator<Item = Attempt<'a>>) -> Option<(i64, i64)> {
    attempts.map(Attempt::start_ns).fold(None, |span, at| {
        let (first, last) = span.unwrap_or((at, at));
        Some((at.min(first), at.max(last)))
    })
}

fn name(recording: &Recording, known: &Known<'_>, causes: &[Cause]) -> Vec<NamedAttempt> {
    let mut cause_of = HashMap::new();
    for cause in causes {
        cause_of.extend(cause.explains.iter().map(|index| (*index, cause.name)));
    }
    let name = |index: &usize| {
        let attempt = known.attempts.get(*index);
        let upstream = match known.legs.upstream(*index) {
            Upstream::Leg(upstream) => Some(known.attempts.get(upstream)),
            Upstream::None | Upstream::NeverTried => None,
        };
        NamedAttempt {
            pair: pair(recording, attempt.row()),
            started_unix_ns: recording.clock.unix_ns(attempt.start_ns()),
            outcome: attempt.outcome().to_owned(),
            cause: cause_of.get(index).copied(),
            upstream_port: upstream.map(Attempt::port),
            upstream_outcome: upstream.map(|upstream| upstream.outcome().to_owned()),
        }
    };
    known.legs.front.iter().map(name).collect()
}

fn services(recording: &Recording, known: &Known<'_>) -> Vec<ServiceHandshakes> {
    let mut groups: BTreeMap<(u32, u64, bool), Vec<usize>> = BTreeMap::new();
    for index in known.legs.on_path() {
        let attempt = known.attempts.get(index);
        let key = (attempt.port(), attempt.cgroup_id(), !attempt.passive());
        groups.entry(key).or_default().push(index);
    }
    groups
        .into_iter()
        .map(|((port, cgroup, active), group)| {
            let each = || group.iter().map(|index| known.attempts.get(*index));
            ServiceHandshakes {
                container: recording.container_name(cgroup),
                port,
                role: if active { "active" } else { "passive" },
                attempts: group.len(),
                funnel: reached(each()),
                steps: steps(&each().filter(|attempt| attempt.outcome() == UPGRADED)),
                retransmitted: each().filter(|attempt| attempt.retransmits() > 0).count(),
                outcomes: outcomes(recording, each(), group.len()),
            }
        })
        .collect()
}

/// What is kept of one outcome while its attempts go by.
struct Seen {
    count: usize,
    first_ns: i64,
    last_ns: i64,
    rows: Vec<usize>,
}

fn outcomes<'a>(
    recording: &Recording,
    group: impl Iterator<Item = Attempt<'a>>,
    total: usize,
) -> Vec<OutcomeCount> {
    let mut by_outcome: BTreeMap<&str, Seen> = BTreeMap::new();
    for attempt in group {
        let at = attempt.start_ns();
        let new = || Seen { count: 0, first_ns: at, last_ns: at, rows: Vec::new() };
        let seen = by_outcome.entry(attempt.outcome()).or_insert_with(new);
        seen.count += 1;
        seen.first_ns = seen.first_ns.min(at);
        seen.last_ns = seen.last_ns.max(at);
        if seen.rows.len() < EXAMPLES {
            seen.rows.push(attempt.row());
        }
    }
    let mut counts: Vec<OutcomeCount> = by_outcome
        .into_iter()
        .map(|(outcome, seen)| OutcomeCount {
            outcome: outcome.to_owned(),
            count: seen.count,
            percent: 100.0 * seen.count as f64 / total as f64,
            first_unix_ns: recording.clock.unix_ns(seen.first_ns),
            last_unix_ns: recording.clock.unix_ns(seen.last_ns),
            examples: seen.rows.into_iter().map(|row| pair(recording, row)).collect(),
        })
        .collect();
    counts.sort_by_key(|outcome| std::cmp::Reverse(outcome.count));
    counts
}

fn over_time(recording: &Recording, known: &Known<'_>) -> Vec<Bucket> {
    let front = || known.legs.front.iter().map(|index| known.attempts.get(*index));
    let Some((first, last)) = span(front()) else { return Vec::new() };
    let width = ((last - first) / BUCKETS + 1).max(1);
    let mut buckets = vec![Bucket::default(); ((last - first) / width + 1) as usize];
    for (bucket, at) in buckets.iter_mut().zip((first..).step_by(width as usize)) {
        bucket.at_unix_ns = recording.clock.unix_ns(at);
    }
    for attempt in front() {
        let bucket = &mut buckets[((attempt.start_ns() - first) / width) as usize];
        bucket.attempts += 1;
        bucket.failed += usize::from(attempt.failed());
    }
    buckets
}

fn pair(recording: &Recording, row: usize) -> Pair {
    let connections = &recording.connections;
    let address = |address| {
        let found = connections.address(address, row);
        found.map_or_else(|| "unknown".to_owned(), Cow::into_owned)
    };
    Pair {
        remote_address: address(Address::Remote),
        remote_port: connections.small(Number::RemotePort, row).unwrap_or(0),
        local_address: address(Address::Local),
        local_port: connections.small(Number::LocalPort, row).unwrap_or(0),
        cookie: connections.number(Number::Cookie, row).unwrap_or(0),
    }
}
