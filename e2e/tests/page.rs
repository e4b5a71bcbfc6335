//! The agent's page in a real browser, with connections whose number is known.

use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::probe::Agent;
use e2e::process::Running;
use serde_json::Value;

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.mjs");

#[test]
fn the_page_says_what_is_there() {
    let needs = [Need::Bpf, Need::Program("chromium"), Need::Program("node")];
    let Some(_machine) = require(&needs) else { return };
    let server = lab::Server::start(
        &Place::host(),
        &["serve", "--listen", "127.0.0.1:0", "--fault", "app-leak-on-rst"],
    );
    let agent = Agent::start_with(&["--health", &format!("http://{}/health", server.address())]);
    let mut browser = Command::new("node");
    browser.args([BROWSER, &format!("http://{}/", Agent::LISTEN), "5 phantoms"]);
    let browser = Running::start(&mut browser);
    browser.wait_stderr("open");

    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--connections", "23"]);
    load.args(["--hold", "10m", "--end", "rst:5", "--end-at", "1s"]);
    let _load = Running::start(&mut load);

    let finished = browser.wait(Duration::from_secs(60));
    let seen: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"));
    assert_eq!(seen["errors"], serde_json::json!([]), "{finished}");
    let text = seen["text"].as_str().unwrap();
    assert!(text.contains("reports 23; established 18; 5 phantoms"), "{text}");
    let port = server.address().port().to_string();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .filter(|row: &Vec<&str>| row.len() == 10 && row[1] == port)
        .collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(rows.iter().all(|row| row[4] == "18"), "upgraded: {rows:?}");
    drop(agent);
}
