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

/// A link to one service of many; the agent goes and comes again, and its counts go on.
#[test]
fn the_page_outlives_the_agent_and_is_saved() {
    let needs = [Need::Bpf, Need::Program("chromium"), Need::Program("node")];
    let Some(_machine) = require(&needs) else { return };
    let server = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port();
    let mut agent = Agent::start();
    let load = |connections: &str| {
        let mut load = lab::command(&Place::host());
        load.args(["load", "--url", &format!("ws://{}/", server.address()), "--hold", "10m"]);
        Running::start(load.args(["--connections", connections]))
    };
    let _load = load("23");
    let view = format!("service=host%3A{port}%3Apassive&search={port}");
    let row = |count: u32| format!("host\t{port}\tpassive\t{count}\t{count}\t");
    let (before, after) = (row(23), row(28));
    let away = "no answer from the agent";
    let mut browser = Command::new("node");
    browser.args([BROWSER, &format!("http://{}/#{view}", Agent::LISTEN), &before, away, &after]);
    let browser = Running::start(&mut browser);
    browser.wait_stderr("saw 0");
    agent.terminate();
    browser.wait_stderr("saw 1");
    let _more = load("5");
    agent.start_again();

    let finished = browser.wait(Duration::from_secs(90));
    let seen: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"));
    let text = seen["text"].as_str().unwrap();
    assert!(text.contains(&after), "{text}");
    assert!(text.contains(&format!("host, port {port}, passive")), "{text}");
    assert!(text.contains(&format!("probe record -o capture --port {port} ")), "{text}");
    // What goes wrong is that nobody answers, and nothing else.
    let errors = seen["errors"].as_array().unwrap();
    let is_away = |error: &Value| {
        let error = error.as_str().unwrap();
        ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
            .iter()
            .any(|expected| error.contains(expected))
    };
    assert!(errors.iter().all(is_away), "{finished}");
    assert_eq!(seen["address"], format!("#{view}"));

    // The file needs nothing from elsewhere.
    let saved = seen["saved"].as_str().unwrap();
    assert!(saved.contains(&format!("<td class=\"n\">{port}</td>")), "{saved}");
    assert!(
        saved.contains("<style>") && saved.contains(&format!("groundtruth: {}", Agent::LISTEN))
    );
    assert!(
        ["<script", "<link", "src=", "href="].iter().all(|part| !saved.contains(part)),
        "{saved}"
    );
}
