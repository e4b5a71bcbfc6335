//! Runs `lab`, whose servers and clients keep books of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
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

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
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
        let all = self.report["thresholds"].as_array().into_iter().flatten();
        let found = all.clone().find(|threshold| threshold["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name}: {}", self.report["thresholds"]));
        found["state"].as_str().unwrap_or_default()
    }
}

/// Runs the scenario on the host to its end, whatever that is.
///
/// # Panics
/// If it leaves no report.
#[track_caller]
#[must_use]
pub fn scenario(name: &str, args: &[&str]) -> Scenario {
    const PATIENCE: Duration = Duration::from_secs(240);

    let scratch = Scratch::new(name);
    let dir = scratch.join("run");
    let mut command = command(&Place::host());
    let finished =
        finish_within(command.args(["run", name, "--json", "-o", &dir]).args(args), PATIENCE);
    let report = std::fs::read(scratch.path().join("run/report.json"))
        .unwrap_or_else(|error| panic!("{name}: {error}: {finished}"));
    let report = serde_json::from_slice(&report).unwrap_or_else(|e| panic!("{name}: {e}"));
    Scenario { summary: last_json(&finished), finished, report, scratch }
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
