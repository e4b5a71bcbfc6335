//! The same figures from the kernel's side: every attempt that reached the recorded host.

use std::collections::HashSet;

use polars::prelude::DataFrame;
use serde::Serialize;

use crate::client::spread::{Latency, Spread};
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::handshake::{self, HandshakeReport};

/// What the kernel saw of all clients of a population, whoever they were.
#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) outcome: String,
    pub(crate) count: u64,
}

pub(crate) fn view(
    recordings: &[Recording],
    populations: &[Population],
) -> anyhow::Result<KernelView> {
    let (mut attempted, mut successful, mut failed) = (0, 0, 0);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut connect, mut starts) = (Spread::default(), Vec::new());
    let (mut bytes_received, mut bytes_sent) = (0, 0);
    for (recording, population) in recordings.iter().zip(populations) {
        let report = handshake::of(recording, population)?;
        attempted += report.attempts as u64;
        successful += report.upgraded as u64;
        failed += report.failed as u64;
        for attempt in &report.named {
            starts.push(attempt.started_unix_ns);
            match outcomes.iter_mut().find(|known| known.outcome == attempt.outcome) {
                Some(known) => known.count += 1,
                None => outcomes.push(Outcome { outcome: attempt.outcome.clone(), count: 1 }),
            }
        }
        let (received, sent) = add_rows(&recording.connections, &report, &mut connect)?;
        bytes_received += received;
        bytes_sent += sent;
    }
    outcomes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.outcome.cmp(&b.outcome)));
    Ok(KernelView {
        population: populations.first().map(Population::label).unwrap_or_default(),
        attempted,
        successful,
        failed,
        success_percent: (attempted > 0).then(|| 100.0 * successful as f64 / attempted as f64),
        attempts_per_second: per_second(&starts),
        outcomes,
        connect: connect.latency(),
        bytes_received,
        bytes_sent,
    })
}

/// From the SYN to the answer's first byte, of the upgraded attempts of a report.
pub(crate) fn connect_times(
    recording: &Recording,
    report: &HandshakeReport,
) -> anyhow::Result<Option<Latency>> {
    let mut connect = Spread::default();
    add_rows(&recording.connections, report, &mut connect)?;
    Ok(connect.latency())
}

/// Times from SYN to answer of upgraded connections that clients made; bytes in, bytes out.
fn add_rows(
    table: &DataFrame,
    report: &HandshakeReport,
    connect: &mut Spread,
) -> anyhow::Result<(u64, u64)> {
    let front: HashSet<u64> = report.named.iter().map(|attempt| attempt.pair.cookie).collect();
    let cookie = table.column("cookie")?.u64()?;
    let role = table.column("role")?.str()?;
    let syn = table.column("syn_received_ns")?.i64()?;
    let response = table.column("response_ns")?.i64()?;
    let upgraded = table.column("upgraded_ns")?.i64()?;
    let received = table.column("bytes_received")?.u64()?;
    let sent = table.column("bytes_sent")?.u64()?;
    let mut bytes = (0, 0);
    for row in 0..table.height() {
        let of_a_client = cookie.get(row).is_some_and(|cookie| front.contains(&cookie));
        if !of_a_client || role.get(row) != Some("passive") || upgraded.get(row).is_none() {
            continue;
        }
        bytes.0 += received.get(row).unwrap_or(0);
        bytes.1 += sent.get(row).unwrap_or(0);
        if let (Some(syn), Some(response)) = (syn.get(row), response.get(row)) {
            connect.record_ms((response - syn) as f64 / 1e6);
        }
    }
    Ok(bytes)
}

/// How many began in a second, from the first to the last; `None` for fewer than two.
pub(crate) fn per_second(starts_unix_ns: &[i64]) -> Option<f64> {
    let first = starts_unix_ns.iter().min()?;
    let last = starts_unix_ns.iter().max()?;
    let seconds = (last - first) as f64 / 1e9;
    (seconds > 0.0).then(|| (starts_unix_ns.len() - 1) as f64 / seconds)
}
