//! Runs `lab`, whose servers and clients keep books of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::net::Place;
use crate::process::{Finished, Running, Signal, binary, finish_within};
use crate::scratch::Scratch;

/// `lab` in a place's network, not started yet.
#[must_use]
pub fn command(place: &Place) -> Command {
    place.command(binary("lab"))
}

/// A `lab serve` or `lab sink` that listens.
#[derive(Debug)]
pub struct Server {
    process: Running,
    listening: Vec<SocketAddr>,
}

impl Server {
    /// Starts it with `--json` and these arguments, and waits until it says where it listens.
    #[track_caller]
    #[must_use]
    pub fn start(place: &Place, args: &[&str]) -> Self {
        let process = Running::start(command(place).args(args).arg("--json"));
        let line = process.wait_stdout("listening");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let addresses = said["listening"].as_array().into_iter().flatten();
        let listening = addresses.filter_map(|address| address.as_str()?.parse().ok()).collect();
        Self { process, listening }
    }

    /// The first address it listens on.
    ///
    /// # Panics
    /// If it named none.
    #[track_caller]
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        *self.listening.first().expect("an address to listen on")
    }

    /// The port of every address it listens on, in the order of the arguments.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.listening.iter().map(SocketAddr::port).collect()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it; its totals.
    #[track_caller]
    #[must_use]
    pub fn stop(self) -> Value {
        let finished = self.process.stop(Signal::TERM);
        assert_eq!(finished.code, Some(143), "{finished}");
        last_json(&finished)
    }
}

/// What a `lab run SCENARIO` left behind.
#[derive(Debug)]
pub struct Scenario {
    finished: Finished,
    /// What it says was done and found.
    pub summary: Value,
    /// The analyzer's.
    pub report: Value,
    scratch: Scratch,
}

impl Scenario {
    /// Itself, if it exited with this code.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn exited(self, code: i32) -> Self {
        let thresholds = &self.report["thresholds"];
        assert_eq!(self.finished.code, Some(code), "{}\n{thresholds:#}", self.finished);
        self
    }

    /// What it said while it ran.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.finished.stderr
    }

    /// A file or directory of the run.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join("run").join(name)
    }

    /// Whether a threshold of the report held, was crossed, or is inconclusive.
    ///
    /// # Panics
    /// If the report has no such threshold.
    #[track_caller]
    #[must_use]
    pub fn threshold(&self, name: &str) -> &str {
        threshold(&self.report, name)
    }

    /// Every threshold held, but maybe those that a slow or busy machine misses; and the exit code
    /// says just that.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn held_but_for_speed(&self) {
        let slow = missed_by_speed(&self.report);
        let code = if slow { 99 } else { 0 };
        assert_eq!(self.finished.code, Some(code), "{}\n{}", self.finished, self.report);
    }
}

/// Whether a threshold of a report held, held with a warning, was crossed, or is inconclusive.
#[track_caller]
fn threshold<'a>(report: &'a Value, name: &str) -> &'a str {
    let mut all = report["thresholds"].as_array().into_iter().flatten();
    let found = all.find(|threshold| threshold["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name}: {}", report["thresholds"]));
    found["state"].as_str().unwrap_or_default()
}

/// Whether a threshold of speed was missed. No other may be, nor come near it.
#[track_caller]
fn missed_by_speed(report: &Value) -> bool {
    let all = report["thresholds"].as_array().into_iter().flatten();
    let beyond: Vec<&Value> = all.filter(|one| one["state"] != "held").collect();
    for one in &beyond {
        let name = one["name"].as_str().unwrap_or_default();
        assert!(SPEED.iter().any(|figure| name.starts_with(figure)), "{one}");
    }
    beyond.iter().any(|one| one["state"] != "warning")
}

/// Figures of thresholds that depend on how fast the machine is, and on what else it does.
const SPEED: [&str; 2] = ["clients.round_trip_", "leaks.cpu_percent_"];

/// What a `lab run` of several scenarios left behind, one each in their order.
#[derive(Debug)]
pub struct Sequence {
    summaries: Vec<Value>,
    reports: Vec<Value>,
    finished: Finished,
}

impl Sequence {
    /// As [`Scenario::held_but_for_speed`], each of them.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn held_but_for_speed(&self) {
        let slow = self.reports.iter().filter(|report| missed_by_speed(report)).count();
        let code = if slow > 0 { 99 } else { 0 };
        assert_eq!(self.finished.code, Some(code), "{}", self.finished);
    }

    /// The state of one threshold in each, if the whole exited with this code.
    ///
    /// # Panics
    /// If it did not, or a report has no such threshold.
    #[track_caller]
    #[must_use]
    pub fn exited_with(&self, code: i32, name: &str) -> Vec<&str> {
        assert_eq!(self.finished.code, Some(code), "{}", self.finished);
        self.reports.iter().map(|report| threshold(report, name)).collect()
    }

    /// What each of them came to by the analyzer's word alone.
    #[must_use]
    pub fn judged(&self) -> Vec<i64> {
        self.summaries.iter().filter_map(|one| one["analyzer_exit_code"].as_i64()).collect()
    }
}

/// Runs the scenario on the host to its end, whatever that is.
///
/// # Panics
/// If it leaves no report.
#[track_caller]
#[must_use]
pub fn scenario(name: &str, args: &[&str]) -> Scenario {
    let (finished, scratch) = run_into_scratch(name, args);
    Scenario {
        summary: last_json(&finished),
        report: report_of(&scratch.path().join("run"), &finished),
        finished,
        scratch,
    }
}

/// Runs several scenarios one after the other, as `lab run` does itself by the name of the whole.
///
/// # Panics
/// If one of them leaves no report or no summary.
#[track_caller]
#[must_use]
pub fn sequence(name: &str, of: &[&str], args: &[&str]) -> Sequence {
    let (finished, scratch) = run_into_scratch(name, args);
    let summaries: Vec<Value> =
        finished.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let names: Vec<&str> = summaries.iter().filter_map(|one| one["scenario"].as_str()).collect();
    assert_eq!(names, of, "{finished}");
    let reports =
        of.iter().map(|one| report_of(&scratch.path().join("run").join(one), &finished)).collect();
    Sequence { summaries, reports, finished }
}

fn run_into_scratch(name: &str, args: &[&str]) -> (Finished, Scratch) {
    const PATIENCE: Duration = Duration::from_secs(240);

    let scratch = Scratch::new(name);
    let dir = scratch.join("run");
    let mut command = command(&Place::host());
    let command = command.args(["run", name, "--json", "-o", &dir]).args(args);
    (finish_within(command, PATIENCE), scratch)
}

#[track_caller]
fn report_of(run: &Path, finished: &Finished) -> Value {
    let path = run.join("report.json");
    let report = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: {finished}", path.display()));
    serde_json::from_slice(&report).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs `lab` to its end, and reads the JSON it prints last.
#[track_caller]
#[must_use]
pub fn run(place: &Place, args: &[&str], timeout: Duration) -> Value {
    let finished = finish_within(command(place).args(args).arg("--json"), timeout);
    assert_eq!(finished.code, Some(0), "lab {args:?}: {finished}");
    last_json(&finished)
}

#[track_caller]
fn last_json(finished: &Finished) -> Value {
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON at the end: {e}\n{finished}"))
}
