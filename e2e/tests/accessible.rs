//! The agent's page and the report, for those who use a keyboard or a screen reader, or see little
//! contrast: walked with the Tab key, and judged by axe-core (`npm install axe-core`, found by `NODE_PATH`).

use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require, require_beside_others};
use e2e::net::Place;
use e2e::node;
use e2e::probe::Agent;
use e2e::process::{Running, binary, finish};
use e2e::scratch::Scratch;
use serde_json::{Value, json};

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/accessible.mjs");
const BROWSERS: [Need; 2] = [Need::Program("chromium"), Need::NodePackage("axe-core")];

/// A browser that judges the page once it says this.
fn open(url: &str, ready: &str) -> Running {
    let mut browser = Command::new("node");
    browser.env("NODE_PATH", node::path()).args([BROWSER, url, ready]);
    let browser = Running::start(&mut browser);
    browser.wait_stderr("open");
    browser
}

/// Nothing to stumble over.
#[track_caller]
fn assert_accessible(browser: Running) {
    let finished = browser.wait(Duration::from_secs(180));
    let seen: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"));
    for what in ["violations", "unreached", "unmarked", "errors"] {
        assert_eq!(seen[what], json!([]), "{what}: {finished}");
    }
    // An empty page has nothing wrong either.
    assert!(seen["rules"].as_u64() > Some(30) && seen["reached"].as_u64() > Some(10), "{finished}");
}

/// With a balancer's port chosen, its shards, phantoms and failures.
#[test]
fn the_agents_page() {
    let Some(_machine) = require(&[&BROWSERS[..], &[Need::Bpf]].concat()) else { return };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--max-connections", "20"];
    let shard = lab::Server::start(&Place::host(), &serve);
    let balance = ["balance", "--listen", "127.0.0.1:0", "--workers", "1", "--slots", "20"];
    let at = shard.address().to_string();
    let balancer = lab::Server::start(&Place::host(), &[&balance[..], &["--shard", &at]].concat());
    let health = format!("http://{}/health", balancer.address());
    let _agent = Agent::start_with(&["--health", &health]);
    let port = balancer.address().port();
    let url = format!("http://{}/#service=host%3A{port}%3Apassive", Agent::LISTEN);
    // A page has the failures since it was opened.
    let browser = open(&url, "(23 attempts here, 20 at them)");
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", balancer.address()), "--connections", "23"]);
    // The last three are refused, by then the agent gathers for the page.
    let _load = Running::start(load.args(["--hold", "10m", "--ramp", "10/s"]));
    assert_accessible(browser);
}

#[test]
fn the_report() {
    let Some(_machine) = require_beside_others(&BROWSERS) else { return };
    let scratch = Scratch::new("accessible");
    let (made, report) = (scratch.join("made"), scratch.join("report"));
    let mut lab = Command::new(binary("lab"));
    lab.args(["generate", "--connections", "10k", "--health", "120", "-o", &made]);
    let _ = finish(&mut lab).success("lab generate");
    let (capture, clients) = (format!("{made}/capture"), format!("{made}/clients.jsonl"));
    let mut analyzer = Command::new(binary("analyzer"));
    analyzer.args(["report", &capture, "--client", &clients, "-o", &report]);
    assert_eq!(finish(&mut analyzer).code, Some(99));
    assert_accessible(open(&format!("file://{report}/report.html"), "handshakes failed"));
}
