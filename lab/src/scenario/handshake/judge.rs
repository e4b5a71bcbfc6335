//! Holds each client's connection against what `analyzer` says of it: its outcome, and its cause.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Handshakes, cause};
use crate::client::record::Record;
use crate::error::{LabError, file_error};
use crate::truth::Hit;

/// Nothing was done to it, or nothing is said against it.
const NONE: &str = "none";
/// Examples of what was wrong.
const EXAMPLES: usize = 10;
/// Of 100 connections, so many must be explained rightly.
const ACCURACY: f64 = 99.5;

/// A line of `analyzer handshakes --attempts`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    remote_address: String,
    remote_port: u16,
    started_unix_ns: i64,
    outcome: String,
    cause: Option<String>,
}

/// The part of `report.json` that is compared.
#[derive(Debug, Deserialize)]
struct Report {
    captures: Vec<Capture>,
}

#[derive(Debug, Deserialize)]
struct Capture {
    handshakes: Option<HandshakeReport>,
}

#[derive(Debug, Deserialize)]
struct HandshakeReport {
    causes: Vec<Ranked>,
}

/// A cause of the report, the one that explains most first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ranked {
    pub(super) name: String,
    pub(super) count: u64,
    /// What the evidence does not rule out.
    pub(super) or: Option<String>,
}

/// What was done, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    connections: usize,
    /// Connections by what was done to them, and by what the report says of them; `a or b` where it
    /// leaves both open.
    causes: BTreeMap<String, BTreeMap<String, usize>>,
    ranked: Vec<Ranked>,
    pub(super) accuracy_percent: f64,
    /// Nothing was done to them, and they are said to have failed.
    falsely_accused: usize,
    wrong_outcomes: usize,
    /// The first few that are wrong, in words.
    examples: Vec<String>,
    pub(super) equal: bool,
}

pub(super) fn ranked(report: &Path) -> anyhow::Result<Vec<Ranked>> {
    let text = std::fs::read_to_string(report)
        .map_err(|error| file_error(report, "read the report", &error))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| LabError::usage(format!("{}: {error}", report.display())))?;
    let handshakes = report.captures.into_iter().filter_map(|capture| capture.handshakes);
    Ok(handshakes.flat_map(|handshakes| handshakes.causes).collect())
}

/// Reads a file of JSON lines.
pub(super) fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = std::fs::read_to_string(path).map_err(|error| file_error(path, "read", &error))?;
    let line = |(index, line)| {
        serde_json::from_str(line)
            .map_err(|error| LabError::usage(format!("{}:{}: {error}", path.display(), index + 1)))
    };
    text.lines().enumerate().map(line).collect()
}

/// `front_port` is the port that the clients connected to; `first` must be ranked first.
pub(super) fn compare(
    scenario: &Handshakes,
    front_port: u16,
    first: Option<&str>,
    hits: &[Hit],
    clients: &[Record],
    attempts: &[Attempt],
    ranked: Vec<Ranked>,
) -> Comparison {
    let by_client = by_client(hits, clients);
    let mut by_address: HashMap<(&str, u16), Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        by_address.entry((&attempt.remote_address, attempt.remote_port)).or_default().push(attempt);
    }
    let mut comparison = Comparison {
        connections: clients.len(),
        causes: BTreeMap::new(),
        ranked,
        accuracy_percent: 100.0,
        falsely_accused: 0,
        wrong_outcomes: 0,
        examples: Vec::new(),
        equal: false,
    };
    let mut right = 0;
    for (client, hits) in clients.iter().zip(by_client) {
        let address = client.local_address.as_deref().unwrap_or_default();
        let key = (address, client.local_port.unwrap_or(0));
        // A port may be used again: the attempt is the one of that time.
        let attempt = by_address.get(&key).and_then(|all| {
            all.iter().min_by_key(|a| a.started_unix_ns.abs_diff(client.started_unix_ns))
        });
        // What the front did is nearer to the client than what a shard did.
        let at_front = |hit: &&&Hit| hit.local_port == front_port;
        let hit = hits.iter().find(at_front).or(hits.first());
        let expected = expected(scenario, client, hit.copied());
        let found = attempt.and_then(|attempt| attempt.cause.as_deref());
        let or = comparison.ranked.iter().find(|one| Some(one.name.as_str()) == found);
        let or = or.and_then(|one| one.or.clone());
        let cause_right = found == expected || (or.is_some() && or.as_deref() == expected);
        // What the front decided on reaches those who are still there.
        let decided = hits.iter().find(at_front).and_then(|hit| hit.outcome.as_deref());
        let decided = decided.filter(|_| client.outcome != "no_response_client_left");
        let outcome_right = attempt.map_or(client.outcome == "unknown", |attempt| {
            decided.is_none_or(|decided| decided == attempt.outcome)
                && agrees(&client.outcome, &attempt.outcome)
        });
        comparison.falsely_accused += usize::from(expected.is_none() && found.is_some());
        comparison.wrong_outcomes += usize::from(!outcome_right);
        if cause_right && outcome_right {
            right += 1;
        } else if comparison.examples.len() < EXAMPLES {
            comparison.examples.push(format!(
                "{}:{} was {} and should be {}; recorded as {}, the client saw {}",
                key.0,
                key.1,
                found.unwrap_or(NONE),
                expected.unwrap_or(NONE),
                attempt.map_or("nothing", |attempt| &attempt.outcome),
                client.outcome,
            ));
        }
        let found = match (found, or) {
            (Some(found), Some(or)) => format!("{found} or {or}"),
            (found, _) => found.unwrap_or(NONE).to_owned(),
        };
        let row = comparison.causes.entry(expected.unwrap_or(NONE).to_owned()).or_default();
        *row.entry(found).or_default() += 1;
    }
    if !clients.is_empty() {
        comparison.accuracy_percent = 100.0 * f64::from(right) / clients.len() as f64;
    }
    let leading = comparison.ranked.first();
    let first_right = match first {
        None => leading.is_none(),
        Some(first) => {
            leading.is_some_and(|one| one.name == first || one.or.as_deref() == Some(first))
        }
    };
    comparison.equal = !clients.is_empty()
        && first_right
        && comparison.accuracy_percent >= ACCURACY
        && comparison.falsely_accused == 0;
    comparison
}

/// The hits of each client. A port may be used again after a second, so a hit belongs to the client that
/// was the last to start from there.
fn by_client<'a>(hits: &'a [Hit], clients: &[Record]) -> Vec<Vec<&'a Hit>> {
    let mut starts: HashMap<(&str, u16), Vec<(i64, usize)>> = HashMap::new();
    for (index, client) in clients.iter().enumerate() {
        if let (Some(address), Some(port)) = (&client.local_address, client.local_port) {
            starts.entry((address, port)).or_default().push((client.started_unix_ns, index));
        }
    }
    let mut found = vec![Vec::new(); clients.len()];
    for hit in hits {
        let from = starts.get(&(hit.client_address.as_str(), hit.client_port));
        let before = from.into_iter().flatten().filter(|(start_ns, _)| *start_ns <= hit.unix_ns);
        if let Some((_, index)) = before.max() {
            found[*index].push(hit);
        }
    }
    found
}

/// The cause that the report must name for a client.
fn expected(scenario: &Handshakes, client: &Record, hit: Option<&Hit>) -> Option<&'static str> {
    if client.upgraded() {
        return None;
    }
    hit.and_then(|hit| cause::of(&hit.fault, scenario.causes)).or_else(|| {
        let seen = |pair: &&(&str, &'static str)| pair.0 == client.outcome;
        scenario.unnamed.iter().find(seen).map(|(_, cause)| *cause)
    })
}

/// Whether what the client saw and what the server's kernel recorded can be the same event.
fn agrees(client: &str, kernel: &str) -> bool {
    let also: &[&str] = match client {
        // Connected as far as the client knows, and then silence.
        "no_response_client_left" => &["never_accepted", "ack_dropped_accept_queue_full"],
        "reset_before_established" => &["no_listener"],
        // Not connected in time; a late SYN-ACK is answered by RST.
        "unknown" => &["syn_dropped_accept_queue_full", "reset_before_established"],
        _ => &[],
    };
    client == kernel || also.contains(&kernel)
}

impl Comparison {
    /// A few sentences for people.
    pub(super) fn text(&self) -> String {
        let verdict = if self.equal { "as it should be" } else { "NOT as it should be" };
        let mut text = format!(
            "{:.2} % of {} connections explained rightly, {} falsely accused: {verdict}",
            self.accuracy_percent, self.connections, self.falsely_accused
        );
        for (done, found) in &self.causes {
            for (found, count) in found {
                text.push_str(&format!("\n  {done:28} found as {found:28} {count:>6}"));
            }
        }
        for example in &self.examples {
            text.push_str(&format!("\n  wrong: {example}"));
        }
        text
    }
}
