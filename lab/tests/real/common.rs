//! Starts the real `lab`, and asks its servers over HTTP.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A `lab` that listens; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addresses: Vec<String>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = lab(args).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let addresses = listening["listening"].as_array().unwrap();
        let addresses = addresses.iter().map(|a| a.as_str().unwrap().to_owned()).collect();
        Server { child, addresses }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        serde_json::from_str(&get(self.address(), path)).unwrap()
    }

    /// What `/health` reports.
    pub(crate) fn reported(&self) -> i64 {
        self.json("/health")["checks"]["capacity"]["current"].as_i64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT, since a balancer has children of its own to end.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

pub(crate) fn lab(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(args).stdin(Stdio::null());
    for name in ["WS_URL", "AUTH_TOKEN", "MAX_CONNECTIONS", "TEST_DURATION", "MESSAGE_FREQUENCY"] {
        command.env_remove(name);
    }
    command
}

/// Runs `lab` to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    lab(args).output().unwrap()
}

/// `lab load --json` against `address`; its summary.
pub(crate) fn load(address: &str, args: &[&str]) -> Value {
    let url = format!("ws://{address}/");
    let output = run(&[&["load", "--json", "--url", &url], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The body of a plain HTTP GET.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// Every line of a JSON lines file.
pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The port numbers in `field` of the lines that `of` picks.
pub(crate) fn ports(lines: &[Value], field: &str, of: impl Fn(&Value) -> bool) -> BTreeSet<u64> {
    lines.iter().filter(|line| of(line)).map(|line| line[field].as_u64().unwrap()).collect()
}
