//! The client report: what the files say, beside what the kernel saw.

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::join::{self, Matches};
use crate::client::kernel::{self, KernelView, per_second};
use crate::client::rates;
use crate::client::spread::Latency;
use crate::input::client::{ClientConnection, ClientFile, ClientResults};
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::handshake::{self, HandshakeReport};
use crate::report::model::{UnreadableLine, shown_lines};

/// A round trip longer than this is worth a line, on any network that a load test should have.
const SLOW_ROUND_TRIP_MS: f64 = 50.0;

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ClientReport {
    pub(crate) files: Vec<ClientFile>,
    /// What an attempt is in these files.
    pub(crate) attempts_are: Vec<&'static str>,
    /// `null` is what no file tells.
    pub(crate) attempted: Option<u64>,
    pub(crate) successful: Option<u64>,
    pub(crate) failed: Option<u64>,
    pub(crate) success_percent: Option<f64>,
    pub(crate) messages_sent: Option<u64>,
    pub(crate) messages_received: Option<u64>,
    /// From the start to a usable connection.
    pub(crate) connect: Option<Latency>,
    /// From a message or request to its answer.
    pub(crate) round_trip: Option<Latency>,
    pub(crate) attempts_per_second: Option<f64>,
    pub(crate) messages_per_second: Option<f64>,
    pub(crate) errors: Vec<ErrorCount>,
    /// Upgraded, and then ended by the server or by the network.
    pub(crate) broken: u64,
    /// When the last of them was closed, on the host's clock; `null` where no file tells.
    pub(crate) last_closed_unix_ns: Option<i64>,
    #[serde(flatten)]
    pub(crate) matches: Matches,
    /// `null` without a capture.
    pub(crate) kernel: Option<KernelView>,
    /// What a reader should look at.
    pub(crate) remarks: Vec<String>,
    /// What the formats cannot answer.
    pub(crate) limits: Vec<String>,
    pub(crate) unreadable: usize,
    pub(crate) unreadable_lines: Vec<UnreadableLine>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ErrorCount {
    pub(crate) kind: String,
    pub(crate) count: u64,
}

/// `populations` and `handshakes` are those of the recordings, in the same order.
pub(crate) fn of(
    results: ClientResults,
    recordings: &[Recording],
    populations: &[&Population],
    handshakes: &[HandshakeReport],
) -> ClientReport {
    let mut matches = join::join(&results.connections, recordings);
    if matches.clock.is_none() {
        let of_host = recordings.iter().zip(populations);
        let of_host = of_host.flat_map(|(one, of)| handshake::starts_unix_ns(one, of));
        matches.clock = rates::offset(results.starts_unix_ns(), of_host.collect());
    }
    let population = populations.last().map(|population| population.label()).unwrap_or_default();
    let kernel =
        if recordings.is_empty() { None } else { Some(kernel::view(handshakes, &population)) };
    let seconds = results.span_unix_ns.map(|(first, last)| (last - first) as f64 / 1e9);
    let rate = |count: Option<u64>| {
        seconds.filter(|seconds| *seconds > 0.0).and_then(|seconds| Some(count? as f64 / seconds))
    };
    let starts = || results.connections.iter().map(|found| found.started_unix_ns);
    let started = starts().min().zip(starts().max());
    let messages =
        results.messages_sent.map(|sent| sent + results.messages_received.unwrap_or_default());
    let mut errors: Vec<ErrorCount> = results
        .errors
        .iter()
        .map(|(kind, count)| ErrorCount { kind: kind.clone(), count: *count })
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    let round_trip = results.round_trip.latency();
    let mut remarks = Vec::new();
    if let Some(max) = round_trip.and_then(|latency| latency.max_ms)
        && max > SLOW_ROUND_TRIP_MS
    {
        remarks.push(slow(max, &results.connections));
    }
    remarks.extend(stalled(&results.connections));
    if let (Some(kernel), Some(attempted)) = (&kernel, results.attempted)
        && kernel.attempted > 0
        && kernel.attempted != attempted
        && !results.connections.is_empty()
    {
        remarks.push(format!(
            "the clients speak of {attempted} attempts, the kernel saw {}",
            kernel.attempted
        ));
    }
    let closed = results.connections.iter().filter_map(|found| found.closed_unix_ns).max();
    ClientReport {
        broken: results.connections.iter().filter(|found| is_broken(found)).count() as u64,
        last_closed_unix_ns: closed.map(|at| matches.clock.map_or(at, |clock| clock.to_host(at))),
        attempts_are: results.attempts_are.into_iter().collect(),
        attempted: results.attempted,
        successful: results.successful,
        failed: results.failed,
        success_percent: results
            .attempted
            .filter(|attempted| *attempted > 0)
            .and_then(|attempted| Some(100.0 * results.successful? as f64 / attempted as f64)),
        messages_sent: results.messages_sent,
        messages_received: results.messages_received,
        connect: results.connect.latency(),
        round_trip,
        attempts_per_second: started
            .and_then(|span| per_second(span, results.connections.len() as u64))
            .or_else(|| rate(results.attempted)),
        messages_per_second: rate(messages),
        errors,
        matches,
        kernel,
        remarks,
        limits: results.limits.into_iter().collect(),
        unreadable: results.unreadable.len(),
        unreadable_lines: shown_lines(results.unreadable.iter()),
        files: results.files,
    }
}

fn is_broken(connection: &ClientConnection) -> bool {
    &*connection.outcome == "upgraded"
        && connection.ended_by.as_deref().is_some_and(|by| by != "client")
}

/// What is slow, and for how many of those clients whose own slowest is known.
fn slow(slowest_ms: f64, connections: &[ClientConnection]) -> String {
    let known = || connections.iter().filter_map(|connection| connection.slowest_ms);
    let waited = known().filter(|ms| *ms > SLOW_ROUND_TRIP_MS).count();
    let whose = if waited == 0 {
        String::new()
    } else {
        format!("; {waited} of {} clients waited longer than 50 ms for an answer", known().count())
    };
    format!("the slowest round trip took {slowest_ms:.1} ms{whose}")
}

/// Clients that wait for an answer before they send again measure a stall once, where clients that
/// keep their pace would have measured it many times (coordinated omission).
fn stalled(connections: &[ClientConnection]) -> Option<String> {
    let (mut stalled, mut missed) = (0, 0.0);
    let waits =
        |connection: &&ClientConnection| !connection.keeps_pace && connection.messages_sent >= 3;
    for connection in connections.iter().filter(waits) {
        let (Some(from), Some(to), Some(slowest_ms)) =
            (connection.upgraded_unix_ns, connection.closed_unix_ns, connection.slowest_ms)
        else {
            continue;
        };
        let pace_ms = (to - from) as f64 / 1e6 / connection.messages_sent as f64;
        if pace_ms > 0.0 && slowest_ms > 2.0 * pace_ms {
            stalled += 1;
            missed += slowest_ms / pace_ms - 1.0;
        }
    }
    (stalled > 0).then(|| {
        format!(
            "{stalled} clients waited for an answer longer than twice their own pace: about {missed:.0} \
             messages were not sent meanwhile, so the percentiles of round trips are too low"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_round_trips_are_counted_by_client() {
        let clients: Vec<_> = [Some(49.9), Some(50.1), Some(75.94), None]
            .map(|slowest_ms| ClientConnection { slowest_ms, ..ClientConnection::default() })
            .into();
        assert_eq!(
            slow(75.94, &clients),
            "the slowest round trip took 75.9 ms; 2 of 3 clients waited longer than 50 ms for an answer"
        );
        // Totals of a tool that writes no connections.
        assert_eq!(slow(75.94, &[]), "the slowest round trip took 75.9 ms");
    }

    #[test]
    fn a_client_that_stalls_is_pointed_out() {
        let client = |slowest_ms| ClientConnection {
            upgraded_unix_ns: Some(0),
            closed_unix_ns: Some(10_000_000_000),
            messages_sent: 100,
            slowest_ms: Some(slowest_ms),
            ..ClientConnection::default()
        };
        assert_eq!(stalled(&[client(3.0), client(199.0)]), None);
        let text = stalled(&[client(3.0), client(1_000.0)]).unwrap();
        assert!(
            text.starts_with("1 clients waited") && text.contains("about 9 messages"),
            "{text}"
        );
        let keeps_pace = ClientConnection { keeps_pace: true, ..client(1_000.0) };
        assert_eq!(stalled(&[keeps_pace]), None);
    }
}
