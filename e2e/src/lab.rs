//! Runs `lab`, whose servers and clients keep books of their own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::net::Place;
use crate::process::{Finished, Running, Signal, binary, finish_within};

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
