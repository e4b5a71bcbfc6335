//! A recording of `probe record`, and its connections by address.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{Running, Signal, binary, finish};
use crate::scratch::Scratch;

/// A `probe record` that has begun.
#[derive(Debug)]
pub struct Recording {
    process: Running,
    directory: String,
}

impl Recording {
    /// Starts it, and waits until it says that it records.
    #[track_caller]
    #[must_use]
    pub fn start(directory: &str, args: &[&str]) -> Self {
        let mut command = Command::new(binary("probe"));
        command.args(["record", "-o", directory]).args(args);
        let process = Running::start(&mut command);
        process.wait_stderr("recording");
        Self { process, directory: directory.to_owned() }
    }

    /// Ends it, and reads what it has written.
    ///
    /// # Panics
    /// If it did not end as Ctrl-C ends it, or `analyzer` cannot read the capture.
    #[track_caller]
    #[must_use]
    pub fn stop(self) -> Recorded {
        let finished = self.process.stop(Signal::INT);
        assert_eq!(finished.code, Some(130), "{finished}");
        let mut command = Command::new(binary("analyzer"));
        command.args(["connections", &self.directory, "--json"]);
        let text = finish(&mut command).success("analyzer connections");
        let rows = text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        Recorded { rows, stderr: finished.stderr, directory: self.directory }
    }
}

/// The rows of a capture, as `analyzer connections --json` prints them.
#[derive(Debug)]
pub struct Recorded {
    pub rows: Vec<Value>,
    pub stderr: String,
    directory: String,
}

impl Recorded {
    /// What `analyzer handshakes --json` makes of the connections to these ports.
    ///
    /// # Panics
    /// If it can make nothing of them.
    #[track_caller]
    #[must_use]
    pub fn handshakes(&self, ports: &[u16]) -> Value {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut command = Command::new(binary("analyzer"));
        command.args(["handshakes", &self.directory, "--json", "--port", &ports.join(",")]);
        let text = finish(&mut command).success("analyzer handshakes");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON: {e}\n{text}"))
    }

    /// Every attempt at a port by name, with its outcome and cause.
    ///
    /// # Panics
    /// If `analyzer` cannot tell them.
    #[track_caller]
    #[must_use]
    pub fn attempts(&self, port: u16) -> Vec<Value> {
        let mut command = Command::new(binary("analyzer"));
        command.args(["handshakes", &self.directory, "--attempts", "--port", &port.to_string()]);
        let text = finish(&mut command).success("analyzer handshakes --attempts");
        text.lines().map(|line| serde_json::from_str(line).expect("an attempt")).collect()
    }

    /// The one row of the server's end of a connection, by the client's port and the service's.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    #[must_use]
    pub fn passive(&self, client_port: u16, port: u16) -> &Value {
        self.one("passive", "remote_port", client_port, port)
    }

    /// The same of the client's end.
    #[track_caller]
    #[must_use]
    pub fn active(&self, client_port: u16, port: u16) -> &Value {
        self.one("active", "local_port", client_port, port)
    }

    #[track_caller]
    fn one(&self, role: &str, field: &str, client_port: u16, port: u16) -> &Value {
        let found: Vec<&Value> = self
            .rows
            .iter()
            .filter(|row| row["role"] == role && row[field] == client_port && row["port"] == port)
            .collect();
        match found[..] {
            [row] => row,
            _ => panic!("{} {role} rows of {client_port} → {port}: {found:?}", found.len()),
        }
    }
}

/// Passive connections of the capture that are over.
///
/// # Panics
/// If `analyzer` cannot read it.
#[track_caller]
#[must_use]
pub fn ended(capture: &str) -> usize {
    let mut command = Command::new(binary("analyzer"));
    command.args(["connections", capture, "--json", "--role", "passive"]);
    let text = finish(&mut command).success("analyzer connections");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row"));
    rows.filter(|row| row["state"] == "close").count()
}

/// The capture's gaps, as the report lists them under data quality: why, and how many rows.
///
/// # Panics
/// If `analyzer report` writes none.
#[track_caller]
#[must_use]
pub fn losses(capture: &str, scratch: &Scratch) -> Vec<(String, u64)> {
    let output = scratch.join("report");
    let mut command = Command::new(binary("analyzer"));
    // There is nothing to judge in it.
    let _ = finish(command.args(["report", capture, "-o", &output]));
    let text = std::fs::read_to_string(Path::new(&output).join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let losses = report["captures"][0]["quality"]["losses"].as_array().expect("losses");
    let number = |loss: &Value| loss["count"].as_u64().expect("a count");
    let reason = |loss: &Value| loss["reason"].as_str().expect("a reason").to_owned();
    losses.iter().map(|loss| (reason(loss), number(loss))).collect()
}
