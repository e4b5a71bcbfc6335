//! What clients saw, from the files of load tools. Each format is recognised by its content.

mod artillery;
mod k6;
mod lab;
mod locust;
pub(crate) mod mapped;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::spread::{Given, Spread};
use crate::error::InputError;
use crate::input::text::{self, Unreadable};
use mapped::ColumnMap;

/// What one client saw of its connection. Times are Unix nanoseconds of the client's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientConnection {
    pub(crate) started_unix_ns: i64,
    pub(crate) connected_unix_ns: Option<i64>,
    pub(crate) upgraded_unix_ns: Option<i64>,
    pub(crate) closed_unix_ns: Option<i64>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) local_port: Option<u16>,
    /// `upgraded`, or why not.
    pub(crate) outcome: Arc<str>,
    pub(crate) messages_sent: u64,
    pub(crate) ended_by: Option<Arc<str>>,
    pub(crate) end: Option<Arc<str>>,
    /// The slowest round trip of its messages.
    pub(crate) slowest_ms: Option<f64>,
    /// It sends at its pace whether it was answered or not, and times every answer.
    pub(crate) keeps_pace: bool,
}

/// The tools whose files are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Lab,
    K6Json,
    K6Csv,
    Artillery,
    LocustStats,
    LocustHistory,
    LocustFailures,
    LocustExceptions,
    MappedJson,
    MappedCsv,
}

impl Format {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Format::Lab => "JSON lines of lab load",
            Format::K6Json => "k6 --out json",
            Format::K6Csv => "k6 --out csv",
            Format::Artillery => "Artillery report",
            Format::LocustStats => "Locust stats",
            Format::LocustHistory => "Locust stats history",
            Format::LocustFailures => "Locust failures",
            Format::LocustExceptions => "Locust exceptions",
            Format::MappedJson => "JSON lines by --map",
            Format::MappedCsv => "CSV by --map",
        }
    }
}

/// One file and what became of its lines.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ClientFile {
    pub(crate) path: String,
    pub(crate) format: Format,
    pub(crate) lines: u64,
    pub(crate) unreadable: u64,
}

/// Starts of attempts that are kept, 8 bytes each: reading takes bounded memory.
const MOST_STARTS: usize = 1 << 20;

/// Everything that the files say. `None` is what no file tells.
#[derive(Debug, Default)]
pub(crate) struct ClientResults {
    pub(crate) files: Vec<ClientFile>,
    /// Of formats that have a line for each connection.
    pub(crate) connections: Vec<ClientConnection>,
    /// Starts of attempts of formats that have times, and no connections.
    other_starts_unix_ns: Vec<i64>,
    pub(crate) attempted: Option<u64>,
    pub(crate) successful: Option<u64>,
    pub(crate) failed: Option<u64>,
    pub(crate) messages_sent: Option<u64>,
    pub(crate) messages_received: Option<u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    /// From the start to a usable connection.
    pub(crate) connect: Spread,
    /// From a message or request to its answer.
    pub(crate) round_trip: Spread,
    /// First and last time in the files.
    pub(crate) span_unix_ns: Option<(i64, i64)>,
    /// What an attempt is in these files.
    pub(crate) attempts_are: BTreeSet<&'static str>,
    pub(crate) unreadable: Vec<Unreadable>,
    /// What the formats cannot answer, or answer in their own way.
    pub(crate) limits: BTreeSet<String>,
    /// Outcomes and ends, each once for all connections.
    words: HashSet<Arc<str>>,
}

impl ClientResults {
    fn add_attempts(&mut self, count: u64, successful: u64) {
        grow(self.attempted.get_or_insert(0), count);
        grow(self.successful.get_or_insert(0), successful);
        grow(self.failed.get_or_insert(0), count.saturating_sub(successful));
    }

    fn add_error(&mut self, kind: &str, count: u64) {
        if count > 0 {
            grow(self.errors.entry(kind.to_owned()).or_default(), count);
        }
    }

    /// An attempt began, of a format that has times and no connections. Beyond the most that are kept the
    /// clock is not told from them: a part of one side has another shape than the whole of the other.
    fn other_start(&mut self, unix_ns: i64) {
        if self.other_starts_unix_ns.len() < MOST_STARTS {
            self.other_starts_unix_ns.push(unix_ns);
        }
    }

    /// When attempts began, of formats that tell it.
    pub(crate) fn starts_unix_ns(&self) -> Vec<i64> {
        let connections = self.connections.iter().map(|connection| connection.started_unix_ns);
        let is_whole = self.other_starts_unix_ns.len() < MOST_STARTS;
        let others = self.other_starts_unix_ns.iter().copied().filter(|_| is_whole);
        connections.chain(others).collect()
    }

    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.words.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = text.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    fn seen_at(&mut self, unix_ns: i64) {
        let (first, last) = self.span_unix_ns.get_or_insert((unix_ns, unix_ns));
        *first = unix_ns.min(*first);
        *last = unix_ns.max(*last);
    }

    fn limit(&mut self, text: &str) {
        self.limits.insert(text.to_owned());
    }

    /// One connection of a format that has a line for each.
    fn add_connection(&mut self, connection: ClientConnection) {
        let upgraded = *connection.outcome == *"upgraded";
        self.add_attempts(1, u64::from(upgraded));
        if !upgraded {
            self.add_error(&connection.outcome, 1);
        }
        if let Some(upgraded_ns) = connection.upgraded_unix_ns {
            self.connect.record_ms((upgraded_ns - connection.started_unix_ns) as f64 / 1e6);
        }
        self.seen_at(connection.started_unix_ns);
        if let Some(last) = connection.closed_unix_ns.or(connection.upgraded_unix_ns) {
            self.seen_at(last);
        }
        self.attempts_are.insert("connections");
        self.connections.push(connection);
    }

    /// Figures that a tool worked out itself. What contradicts itself is said, and not used.
    fn add_given(&mut self, what: &str, round_trip: bool, given: Given) {
        if let Some(contradiction) = given.contradiction() {
            self.limits.insert(format!("{what}: {contradiction}; its mean is left out"));
        }
        let spread = if round_trip { &mut self.round_trip } else { &mut self.connect };
        spread.add_given(given);
    }
}

/// Appends what a file holds. Lines that cannot be read are set aside (the last one of a client that
/// was killed is often half); a file of nothing but such lines is an error.
pub(crate) fn read(
    path: &Path,
    map: Option<&ColumnMap>,
    results: &mut ClientResults,
) -> Result<(), InputError> {
    let head = text::head(path)?;
    if head.trim_ascii().is_empty() {
        return Err(InputError::EmptyClientFile(path.to_path_buf()));
    }
    let Some(format) = recognise(&head, map) else {
        return Err(unrecognised(path, &head));
    };
    let before = results.unreadable.len();
    let lines = match (format, map) {
        (Format::Lab, _) => lab::read(path, results)?,
        (Format::K6Json, _) => k6::read_json(path, results)?,
        (Format::K6Csv, _) => k6::read_csv(path, results)?,
        (Format::Artillery, _) => artillery::read(path, results)?,
        (Format::LocustStats, _) => locust::read_stats(path, results)?,
        (Format::LocustHistory, _) => locust::read_history(path, results)?,
        (Format::LocustFailures, _) => locust::read_failures(path, results)?,
        (Format::LocustExceptions, _) => locust::read_exceptions(path, results)?,
        (Format::MappedJson, Some(map)) => mapped::read_json(path, map, results)?,
        (Format::MappedCsv, Some(map)) => mapped::read_csv(path, map, results)?,
        (Format::MappedJson | Format::MappedCsv, None) => return Err(unrecognised(path, &head)),
    };
    let unreadable = (results.unreadable.len() - before) as u64;
    results.files.push(ClientFile { path: path.display().to_string(), format, lines, unreadable });
    match results.unreadable.get(before) {
        Some(first) if unreadable == lines => Err(InputError::NoClientLines {
            path: path.to_path_buf(),
            line: first.line,
            why: first.why.clone(),
            expected: format!("{}: look whether the file was cut or edited", format.words()),
        }),
        _ => Ok(()),
    }
}

/// Adds up what files claim, which may be more than a number holds.
fn grow(total: &mut u64, by: u64) {
    *total = total.saturating_add(by);
}

fn recognise(head: &[u8], map: Option<&ColumnMap>) -> Option<Format> {
    let text = String::from_utf8_lossy(head);
    if text.trim_start().starts_with('{') {
        let objects = text.lines().filter_map(|line| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).ok()
        });
        for object in objects {
            let has = |key: &str| object.contains_key(key);
            if has("started_unix_ns") && has("outcome") {
                return Some(Format::Lab);
            }
            if has("metric") && has("type") && has("data") {
                return Some(Format::K6Json);
            }
            if has("aggregate") {
                return Some(Format::Artillery);
            }
            if map.is_some() {
                return Some(Format::MappedJson);
            }
        }
        return text.contains("\"aggregate\"").then_some(Format::Artillery);
    }
    let heading = text.lines().find(|line| !line.trim().is_empty())?;
    let columns: Vec<&str> = heading.split(',').map(|name| name.trim().trim_matches('"')).collect();
    let has = |names: &[&str]| names.iter().all(|name| columns.contains(name));
    if has(&["metric_name", "timestamp", "metric_value"]) {
        Some(Format::K6Csv)
    } else if has(&["Timestamp", "User Count", "Total Request Count"]) {
        Some(Format::LocustHistory)
    } else if has(&["Name", "Request Count", "Failure Count"]) {
        Some(Format::LocustStats)
    } else if has(&["Name", "Error", "Occurrences"]) {
        Some(Format::LocustFailures)
    } else if has(&["Count", "Message", "Traceback"]) {
        Some(Format::LocustExceptions)
    } else {
        map.map(|_| Format::MappedCsv)
    }
}

fn unrecognised(path: &Path, head: &[u8]) -> InputError {
    let blank = |line: &&[u8]| line.trim_ascii().is_empty();
    let line = head.split(|byte| *byte == b'\n').take_while(blank).count() as u64 + 1;
    InputError::NoClientLines {
        path: path.to_path_buf(),
        line,
        why: "of no known format".to_owned(),
        expected: "results of lab, k6, Artillery or Locust, or columns named by --map time=…"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Files of load tools, and what libFuzzer made of them.
    fn fixtures() -> Vec<Vec<u8>> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
        let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        let files = files.iter().map(|file| std::fs::read(file).unwrap());
        files.chain(fuzz::corpus("clients")).collect()
    }

    fn read_bytes(bytes: &[u8]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        std::fs::write(&path, bytes).unwrap();
        let map: ColumnMap = "time=time,unit=ms,outcome=outcome".parse().unwrap();
        for map in [None, Some(&map)] {
            let _ = read(&path, map, &mut ClientResults::default());
        }
    }

    #[test]
    fn what_was_found_is_read_again() {
        fixtures().iter().for_each(|bytes| read_bytes(bytes));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// Whatever a load tool writes, or somebody in its name: an answer or an error.
        #[test]
        fn hostile_files(bytes in fuzz::damaged(fixtures())) {
            read_bytes(&bytes);
        }
    }

    #[test]
    fn sums_end_where_numbers_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        let line = r#"{"metric":"ws_sessions","type":"Point","data":{"time":"2026-11-21T20:00:00Z","value":18446744073709551615,"tags":{"status":"101"}}}"#;
        std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
        let mut results = ClientResults::default();
        read(&path, None, &mut results).unwrap();
        assert_eq!(results.attempted, Some(u64::MAX));
    }
}
