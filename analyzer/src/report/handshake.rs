//! Handshakes as data: funnel, stages, outcomes over time, causes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::handshake::attempt::{Attempt, Attempts};
use crate::handshake::legs::{Legs, Upstream};
use crate::handshake::outcome::{OPEN, UPGRADED};
use crate::handshake::stage::{Reached, Step, reached, steps};
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::model::Magnitude;
use crate::rule::handshake::{Case, Cause, causes};

/// Examples per outcome and cause.
const EXAMPLES: usize = 5;
/// Intervals over which outcomes are counted.
const BUCKETS: i64 = 60;

/// Handshakes of one capture.
#[derive(Debug, Serialize)]
pub(crate) struct HandshakeReport {
    pub(crate) capture: String,
    /// On legs that clients made; a proxy's own are not counted again.
    pub(crate) attempts: usize,
    pub(crate) upgraded: usize,
    pub(crate) failed: usize,
    pub(crate) open: usize,
    pub(crate) failed_percent: Option<f64>,
    /// Requests that asked for no upgrade: not attempts.
    pub(crate) plain_http: usize,
    /// Connections of which neither request nor outcome is known.
    pub(crate) untold: usize,
    pub(crate) links: Links,
    pub(crate) services: Vec<ServiceHandshakes>,
    pub(crate) causes: Vec<RankedCause>,
    pub(crate) over_time: Vec<Bucket>,
    /// Every attempt by name; not part of the report.
    #[serde(skip)]
    pub(crate) named: Vec<NamedAttempt>,
}

/// One client's attempt, with what was made of it.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub(crate) struct Links {
    pub(crate) linked: usize,
    pub(crate) certain: usize,
    /// At a proxy, and without an upstream connection.
    pub(crate) never_tried: usize,
}

/// One port of one container, seen from one end.
#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
pub(crate) struct OutcomeCount {
    pub(crate) outcome: String,
    pub(crate) count: usize,
    pub(crate) percent: f64,
    pub(crate) first_unix_ns: i64,
    pub(crate) last_unix_ns: i64,
    pub(crate) examples: Vec<Pair>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RankedCause {
    #[serde(flatten)]
    pub(crate) cause: Cause,
    /// Of all failures.
    pub(crate) percent: f64,
    pub(crate) examples: Vec<Pair>,
}

/// What `ss` and tcpdump can be asked by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Pair {
    pub(crate) remote_address: String,
    pub(crate) remote_port: u32,
    pub(crate) local_address: String,
    pub(crate) local_port: u32,
    pub(crate) cookie: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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

pub(crate) fn of(
    recording: &Recording,
    population: &Population,
) -> anyhow::Result<HandshakeReport> {
    let attempts = Attempts::new(recording, &population.mask(&recording.connections)?)?;
    let legs = Legs::new(&attempts, &recording.connections)?;
    let case = Case { recording, attempts: &attempts, legs: &legs };
    let front = || legs.front.iter().map(|index| &attempts.all[*index]);
    let with = |outcome: &str| front().filter(|a| attempts.outcome(a) == outcome).count();
    let failed = front().filter(|attempt| attempts.failed(attempt)).count();
    let total = legs.front.len();
    let causes = causes(&case);
    let named = named(&case, &causes)?;
    let causes = causes
        .into_iter()
        .map(|cause| {
            let rows = cause.explains.iter().map(|index| attempts.all[*index].row);
            Ok(RankedCause {
                percent: 100.0 * cause.count as f64 / failed as f64,
                examples: pairs(recording, rows.take(EXAMPLES))?,
                cause,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(HandshakeReport {
        capture: recording.name.clone(),
        attempts: total,
        upgraded: with(UPGRADED),
        failed,
        open: with(OPEN),
        failed_percent: (total > 0).then(|| 100.0 * failed as f64 / total as f64),
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
        services: services(recording, &attempts, &legs)?,
        causes,
        over_time: over_time(recording, &attempts, &legs),
        named,
    })
}

fn named(case: &Case<'_>, causes: &[Cause]) -> anyhow::Result<Vec<NamedAttempt>> {
    let (attempts, legs) = (case.attempts, case.legs);
    let mut cause_of = vec![None; attempts.all.len()];
    for cause in causes {
        for index in &cause.explains {
            cause_of[*index] = Some(cause.name);
        }
    }
    let pairs = pairs(case.recording, legs.front.iter().map(|index| attempts.all[*index].row))?;
    let named = legs.front.iter().zip(pairs).map(|(index, pair)| {
        let attempt = &attempts.all[*index];
        let upstream = match legs.upstream(*index) {
            Upstream::Leg(upstream) => Some(&attempts.all[upstream]),
            Upstream::None | Upstream::NeverTried => None,
        };
        NamedAttempt {
            pair,
            started_unix_ns: case.recording.clock.unix_ns(attempt.start_ns),
            outcome: attempts.outcome(attempt).to_owned(),
            cause: cause_of[*index],
            upstream_port: upstream.map(|upstream| upstream.port),
            upstream_outcome: upstream.map(|upstream| attempts.outcome(upstream).to_owned()),
        }
    });
    Ok(named.collect())
}

fn services(
    recording: &Recording,
    attempts: &Attempts,
    legs: &Legs,
) -> anyhow::Result<Vec<ServiceHandshakes>> {
    let mut groups: BTreeMap<(u32, u64, bool), Vec<&Attempt>> = BTreeMap::new();
    for attempt in legs.on_path().map(|index| &attempts.all[index]) {
        let key = (attempt.port, attempt.cgroup_id, !attempt.passive);
        groups.entry(key).or_default().push(attempt);
    }
    groups
        .into_iter()
        .map(|((port, cgroup, active), group)| {
            let upgraded: Vec<&Attempt> = group
                .iter()
                .copied()
                .filter(|attempt| attempts.outcome(attempt) == UPGRADED)
                .collect();
            Ok(ServiceHandshakes {
                container: recording.container_name(cgroup),
                port,
                role: if active { "active" } else { "passive" },
                attempts: group.len(),
                funnel: reached(group.iter().copied()),
                steps: steps(&upgraded),
                retransmitted: group.iter().filter(|attempt| attempt.retransmits > 0).count(),
                outcomes: outcomes(recording, attempts, &group)?,
            })
        })
        .collect()
}

fn outcomes(
    recording: &Recording,
    attempts: &Attempts,
    group: &[&Attempt],
) -> anyhow::Result<Vec<OutcomeCount>> {
    let mut by_outcome: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in group {
        by_outcome.entry(attempts.outcome(attempt)).or_default().push(attempt);
    }
    let mut counts = by_outcome
        .into_iter()
        .map(|(outcome, found)| {
            let starts = || found.iter().map(|attempt| attempt.start_ns);
            let unix = |at: Option<i64>| recording.clock.unix_ns(at.unwrap_or(0));
            Ok(OutcomeCount {
                outcome: outcome.to_owned(),
                count: found.len(),
                percent: 100.0 * found.len() as f64 / group.len() as f64,
                first_unix_ns: unix(starts().min()),
                last_unix_ns: unix(starts().max()),
                examples: pairs(recording, found.iter().map(|attempt| attempt.row).take(EXAMPLES))?,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    counts.sort_by_key(|outcome| std::cmp::Reverse(outcome.count));
    Ok(counts)
}

fn over_time(recording: &Recording, attempts: &Attempts, legs: &Legs) -> Vec<Bucket> {
    let front = || legs.front.iter().map(|index| &attempts.all[*index]);
    let starts = || front().map(|attempt| attempt.start_ns);
    let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return Vec::new() };
    let width = ((last - first) / BUCKETS + 1).max(1);
    let mut buckets = vec![Bucket::default(); ((last - first) / width + 1) as usize];
    for (bucket, at) in buckets.iter_mut().zip((first..).step_by(width as usize)) {
        bucket.at_unix_ns = recording.clock.unix_ns(at);
    }
    for attempt in front() {
        let bucket = &mut buckets[((attempt.start_ns - first) / width) as usize];
        bucket.attempts += 1;
        bucket.failed += usize::from(attempts.failed(attempt));
    }
    buckets
}

fn pairs(recording: &Recording, rows: impl Iterator<Item = u32>) -> anyhow::Result<Vec<Pair>> {
    let table = &recording.connections;
    let remote = table.column("remote_address")?.str()?;
    let remote_port = table.column("remote_port")?.u32()?;
    let local = table.column("local_address")?.str()?;
    let local_port = table.column("local_port")?.u32()?;
    let cookie = table.column("cookie")?.u64()?;
    Ok(rows
        .map(|row| row as usize)
        .map(|row| Pair {
            remote_address: remote.get(row).unwrap_or("unknown").to_owned(),
            remote_port: remote_port.get(row).unwrap_or(0),
            local_address: local.get(row).unwrap_or("unknown").to_owned(),
            local_port: local_port.get(row).unwrap_or(0),
            cookie: cookie.get(row).unwrap_or(0),
        })
        .collect())
}
