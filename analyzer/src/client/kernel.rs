//! The same figures from the kernel's side: every attempt that reached the recorded host.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::spread::{Latency, Spread};
use crate::report::handshake::HandshakeReport;

/// What the kernel saw of all clients of a population, whoever they were.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct KernelView {
    /// The connections it is of, in words.
    pub(crate) population: String,
    pub(crate) attempted: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) success_percent: Option<f64>,
    /// Upgrade requests per second, from the first to the last.
    pub(crate) attempts_per_second: Option<f64>,
    pub(crate) outcomes: Vec<Outcome>,
    /// From the SYN to the answer's first byte, on the server's host.
    pub(crate) connect: Option<Latency>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Outcome {
    pub(crate) outcome: String,
    pub(crate) count: u64,
}

pub(crate) fn view(reports: &[HandshakeReport], population: &str) -> KernelView {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut connect = Spread::default();
    for report in reports {
        connect.merge(&report.connect);
        for (outcome, count) in &report.outcomes {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    let mut outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .map(|(outcome, count)| Outcome { outcome: outcome.to_owned(), count: count as u64 })
        .collect();
    outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.count));
    let sum = |of: fn(&HandshakeReport) -> u64| reports.iter().map(of).sum::<u64>();
    let attempted = sum(|report| report.attempts as u64);
    let successful = sum(|report| report.upgraded as u64);
    let spans = || reports.iter().filter_map(|report| report.span_unix_ns);
    let first = spans().map(|(first, _)| first).min();
    let last = spans().map(|(_, last)| last).max();
    KernelView {
        population: population.to_owned(),
        attempted,
        successful,
        failed: sum(|report| report.failed as u64),
        success_percent: (attempted > 0).then(|| 100.0 * successful as f64 / attempted as f64),
        attempts_per_second: first.zip(last).and_then(|span| per_second(span, attempted)),
        outcomes,
        connect: connect.latency(),
        bytes_received: sum(|report| report.bytes_received),
        bytes_sent: sum(|report| report.bytes_sent),
    }
}

/// How many began in a second, from the first to the last; `None` for fewer than two.
pub(crate) fn per_second((first_ns, last_ns): (i64, i64), count: u64) -> Option<f64> {
    let seconds = (last_ns - first_ns) as f64 / 1e9;
    (seconds > 0.0).then(|| (count - 1) as f64 / seconds)
}
