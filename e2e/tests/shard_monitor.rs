//! `probe watch` on a balancer's health: every shard's connections as the kernel has them, and what
//! failed since the last block.

use std::time::Duration;

use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::{Place, free_port};
use e2e::probe;
use e2e::process::Running;
use serde_json::Value;

const REFUSED: i64 = 23;
const UPGRADED: i64 = 150;

#[test]
fn shards_and_failures_are_counted_to_the_one() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let balancer = Server::start(
        &Place::host(),
        &[
            "balance",
            "--spawn-shards",
            "--listen",
            "127.0.0.1:0",
            "--slots",
            "60",
            "--shard",
            "127.0.0.1:0",
            "--shard",
            "127.0.0.1:0",
            "--shard",
            "127.0.0.1:0",
            "--fault",
            "slot-race:23",
        ],
    );
    let address = balancer.address();
    let mut command = probe::command();
    command.args(["--agent-socket", "/nonexistent/agent.sock", "watch", "--json"]);
    command.args(["--health", &format!("http://{address}/health"), "--interval", "500ms"]);
    command.args([
        "--metrics",
        &format!("http://{address}/metrics"),
        "--metric",
        "lab_refused_total",
    ]);
    command.args(["--until-idle", "--max-phantoms", "100%"]);
    let watching = Running::start(&mut command);
    watching.wait_stderr("watching");

    let url = format!("ws://{address}/");
    let shape = ["load", "--url", &url, "--connections", "173", "--ramp", "200/s", "--hold", "4s"];
    let load = lab::run(&Place::host(), &shape, Duration::from_secs(60));
    assert_eq!(load["outcomes"]["upgraded"], UPGRADED, "{load}");

    let finished = watching.wait(Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{finished}");
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let blocks: Vec<Value> = lines.filter(|line: &Value| line["type"] == "block").collect();

    let total = |block: &Value| block["shards"]["total"]["kernel"].as_i64();
    let full = blocks.iter().rfind(|block| total(block) == Some(UPGRADED));
    let full = full.unwrap_or_else(|| panic!("no block with {UPGRADED}: {blocks:#?}"));
    let shards = full["shards"]["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 3);
    let held: Vec<i64> = shards.iter().filter_map(|shard| shard["kernel"].as_i64()).collect();
    for (shard, kernel) in shards.iter().zip(&held) {
        assert_eq!(shard["reported"], *kernel, "{shard}");
        assert_eq!(shard["available"], 60 - kernel, "{shard}");
        assert_eq!(shard["utilisation_percent"], 100.0 * *kernel as f64 / 60.0, "{shard}");
    }
    let (most, fewest) = (held.iter().max().expect("three"), held.iter().min().expect("three"));
    assert_eq!(full["shards"]["imbalance_of"], "kernel");
    assert_eq!(
        full["shards"]["imbalance_percent"],
        100.0 * (most - fewest) as f64 / *most as f64,
        "{full}"
    );
    assert_eq!(full["shards"]["total"]["available"], 180 - UPGRADED);
    assert_eq!(full["kernel"]["established"], UPGRADED);
    assert_eq!(full["metrics"]["values"]["lab_refused_total"], REFUSED as f64, "{full}");

    // What the kernel says of the balancer's processes stands beside its own report.
    let processes = full["processes"].as_array().expect("a list");
    assert_eq!((processes.len(), &processes[0]["port"]), (1, &address.port().into()), "{full}");
    let sockets = processes[0]["sockets"].as_i64().expect("a count");
    // Both ends of what it passes on, and its listeners and pollers beside.
    assert!(sockets >= 2 * UPGRADED, "{full}");

    let failures = blocks.iter().filter_map(|block| block["failures"].as_array()).flatten();
    let mut refused = 0;
    for failure in failures {
        assert_eq!(failure["outcome"], "http_503", "{failure}");
        assert_eq!(failure["port"], address.port(), "{failure}");
        refused += failure["count"].as_i64().expect("a count");
    }
    assert_eq!(refused, REFUSED);
}

/// A balancer whose body lists no shards, watched on all its ports: what it connects to itself is not what it
/// reports on.
#[test]
fn legs_to_shards_that_no_body_lists_are_left_out() {
    const CLIENTS: i64 = 23;

    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let shards = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let start = ["balance", "--spawn-shards", "--listen", "127.0.0.1:0"];
    let shard = ["--shard", &shards[0], "--shard", &shards[1]];
    let balancer = Server::start(&Place::host(), &[&start[..], &shard].concat());
    let address = balancer.address();
    let ports = [&address.to_string()[..], &shards[0], &shards[1]]
        .map(|listening| listening.replace("127.0.0.1:", ""));
    let mut command = probe::command();
    command.args(["--agent-socket", "/nonexistent/agent.sock", "watch", "--json"]);
    command.args(["--health", &format!("http://{address}/health"), "--shards", ".none"]);
    command.args(["--port", &ports.join(","), "--interval", "500ms", "--until-idle"]);
    let watching = Running::start(&mut command);
    watching.wait_stderr("watching");

    let (url, count) = (format!("ws://{address}/"), CLIENTS.to_string());
    let load = ["load", "--url", &url, "--connections", &count, "--hold", "3s"];
    let load = lab::run(&Place::host(), &load, Duration::from_secs(60));
    assert_eq!(load["outcomes"]["upgraded"], CLIENTS, "{load}");

    let finished = watching.wait(Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{finished}");
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let blocks: Vec<Value> = lines.filter(|line: &Value| line["type"] == "block").collect();
    let held = blocks.iter().filter(|block| block["reported"] == CLIENTS);
    let held: Vec<&Value> = held.collect();
    assert!(!held.is_empty(), "{blocks:#?}");
    for block in held {
        assert!(block["shards"].is_null(), "{block}");
        let kernel = &block["kernel"]["established"];
        assert_eq!((kernel, &block["phantoms"]["reverse"]), (&CLIENTS.into(), &0.into()));
    }
}
