//! Shards behind a balancer: how many connections each has, over time, and what fails at each.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::handshake::attempt::{Attempts, UPGRADE};
use crate::handshake::legs::{Legs, Upstream};
use crate::input::recording::Recording;
use crate::population::{Population, url_port};
use crate::timeline::Timeline;

/// Intervals over which connections are shown.
const BUCKETS: i64 = 60;

#[derive(Debug, Serialize)]
pub(crate) struct ShardReport {
    pub(crate) capture: String,
    pub(crate) shards: Vec<Shard>,
    /// When there were the most connections on all shards together.
    pub(crate) fullest_unix_ns: Option<i64>,
    /// 100·(max − min)/max at that time; `null` with fewer than two shards, or nothing on them.
    pub(crate) imbalance_percent: Option<f64>,
    pub(crate) over_time: Vec<Moment>,
    /// What the balancer's own health said last, by path.
    pub(crate) health: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Shard {
    pub(crate) port: u32,
    pub(crate) attempts: usize,
    pub(crate) upgraded: usize,
    pub(crate) failed: usize,
    /// Upgraded connections: the most, at the fullest time of all, and at the end.
    pub(crate) peak: i64,
    pub(crate) at_fullest: i64,
    pub(crate) at_end: i64,
}

/// Upgraded connections of each shard, in the order of `shards`.
#[derive(Debug, Serialize)]
pub(crate) struct Moment {
    pub(crate) at_unix_ns: i64,
    pub(crate) connections: Vec<i64>,
}

pub(crate) fn of(recording: &Recording, population: &Population) -> anyhow::Result<ShardReport> {
    let everything = Population::of_filter(recording, &crate::cli::Filter::default())?;
    let attempts = Attempts::new(recording, &everything.members(&recording.connections));
    let legs = Legs::new(&attempts, &recording.connections);
    let ports: BTreeSet<u32> = if population.ports.is_empty() {
        upstream_ports(&attempts, &legs, |_| true)
    } else {
        population.ports.iter().map(|port| u32::from(*port)).collect()
    };
    let lines: Vec<(u32, Timeline, [usize; 3])> =
        ports.into_iter().map(|port| shard_line(&attempts, port)).collect();
    let ended_ns = recording.ended_ns()?;
    let total = total(&lines);
    let fullest_ns =
        total.steps().max_by_key(|(at, count)| (*count, std::cmp::Reverse(*at))).map(|(at, _)| at);
    let shards: Vec<Shard> = lines
        .iter()
        .map(|(port, line, [attempts, upgraded, failed])| Shard {
            port: *port,
            attempts: *attempts,
            upgraded: *upgraded,
            failed: *failed,
            peak: line.peak().unwrap_or(0),
            at_fullest: fullest_ns.map_or(0, |ns| line.at(ns)),
            at_end: line.at(ended_ns),
        })
        .collect();
    Ok(ShardReport {
        capture: recording.name.clone(),
        imbalance_percent: imbalance(shards.iter().map(|shard| shard.at_fullest)),
        fullest_unix_ns: fullest_ns.map(|ns| recording.clock.unix_ns(ns)),
        over_time: moments(recording, &lines, ended_ns),
        health: recording.last_health_numbers(".shards[")?,
        shards,
    })
}

/// Of the ports that were recorded those to which the one that was asked passes its clients on: what is
/// open there is not its own. Where no WebSocket to it was recorded, nothing tells, and all others are left out.
pub(crate) fn behind(recording: &Recording, url: &str) -> anyhow::Result<BTreeSet<u32>> {
    let recorded = &recording.meta.selection.ports;
    let asked = url_port(url).filter(|port| recorded.len() > 1 && recorded.contains(port));
    let Some(asked) = asked.map(u32::from) else { return Ok(BTreeSet::new()) };
    let everything = Population::of_filter(recording, &crate::cli::Filter::default())?;
    let attempts = Attempts::new(recording, &everything.members(&recording.connections));
    let legs = Legs::new(&attempts, &recording.connections);
    let mut clients = legs.front.iter().map(|index| attempts.get(*index));
    let is_told = clients.any(|client| client.port() == asked && client.at(UPGRADE).is_some());
    let mut ports = if is_told {
        upstream_ports(&attempts, &legs, |port| port == asked)
    } else {
        recorded.iter().map(|port| u32::from(*port)).collect()
    };
    ports.remove(&asked);
    Ok(ports)
}

/// Where the legs lead to that proxies on such ports made for their clients.
fn upstream_ports(attempts: &Attempts<'_>, legs: &Legs, of: impl Fn(u32) -> bool) -> BTreeSet<u32> {
    let clients = legs.front.iter().filter(|index| of(attempts.get(**index).port()));
    clients
        .filter_map(|index| match legs.upstream(*index) {
            Upstream::Leg(upstream) => Some(attempts.get(upstream).port()),
            Upstream::None | Upstream::NeverTried => None,
        })
        .collect()
}

/// Upgraded connections to one port, seen from the shard's own end where it was recorded, else from
/// the balancer's.
fn shard_line(attempts: &Attempts<'_>, port: u32) -> (u32, Timeline, [usize; 3]) {
    let passive = attempts.iter().any(|attempt| attempt.port() == port && attempt.passive());
    let of_shard =
        || attempts.iter().filter(|a| a.port() == port && a.passive() == passive && a.asks());
    let spans = of_shard().filter_map(|attempt| Some((attempt.at(UPGRADE)?, attempt.left_ns())));
    let counts = [
        of_shard().count(),
        of_shard().filter(|attempt| attempt.at(UPGRADE).is_some()).count(),
        of_shard().filter(|attempt| attempt.failed()).count(),
    ];
    (port, Timeline::from_spans(spans), counts)
}

fn total(lines: &[(u32, Timeline, [usize; 3])]) -> Timeline {
    let changes = lines.iter().flat_map(|(_, line, _)| {
        let mut before = 0;
        line.steps().map(move |(at, count)| {
            let change = count - before;
            before = count;
            (at, change)
        })
    });
    Timeline::from_changes(0, changes.collect())
}

fn imbalance(counts: impl Iterator<Item = i64> + Clone) -> Option<f64> {
    let (most, least) = (counts.clone().max()?, counts.clone().min()?);
    (counts.count() > 1 && most > 0).then(|| 100.0 * (most - least) as f64 / most as f64)
}

fn moments(
    recording: &Recording,
    lines: &[(u32, Timeline, [usize; 3])],
    ended_ns: i64,
) -> Vec<Moment> {
    let started_ns = recording.meta.started_mono_ns;
    let step = ((ended_ns - started_ns) / BUCKETS).max(1_000_000_000);
    (started_ns..=ended_ns)
        .step_by(step as usize)
        .map(|at_ns| Moment {
            at_unix_ns: recording.clock.unix_ns(at_ns),
            connections: lines.iter().map(|(_, line, _)| line.at(at_ns)).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::imbalance;

    #[test]
    fn imbalance_is_against_the_fullest() {
        assert_eq!(imbalance([100, 75, 100].into_iter()), Some(25.0));
        assert_eq!(imbalance([5, 5].into_iter()), Some(0.0));
        assert_eq!(imbalance([5].into_iter()), None);
        assert_eq!(imbalance([0, 0].into_iter()), None);
    }
}
