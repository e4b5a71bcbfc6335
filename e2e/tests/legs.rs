//! A client's four socket ends (client, balancer's two, shard) carry one leg id wherever the balancer
//! passes the WebSocket key on, and no two clients share one.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::{Place, free_port};
use e2e::nginx::Nginx;
use e2e::probe;
use e2e::process::{Running, binary, finish};
use e2e::recording::{Recorded, Recording};
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal};
use serde_json::Value;

const CLIENTS: usize = 40;

/// 40 clients through `port`, recorded.
fn record(scratch: &Scratch, port: u16) -> Recorded {
    let recording = Recording::start(&scratch.join("capture"), &[]);
    let url = format!("ws://127.0.0.1:{port}/");
    let shape = ["load", "--url", &url, "--connections", "40", "--ramp", "400/s", "--hold", "1s"];
    let summary = lab::run(&Place::host(), &shape, Duration::from_secs(30));
    assert_eq!(summary["outcomes"]["upgraded"], CLIENTS, "{summary}");
    recording.stop()
}

/// Every leg id of the balancer's clients has both ends of both legs.
fn assert_linked(recorded: &Recorded, balancer: u16, shards: &[u16]) {
    let mut ends: HashMap<u64, Vec<(u64, &str)>> = HashMap::new();
    for row in &recorded.rows {
        let port = row["port"].as_u64().expect("a port");
        let ours = port == u64::from(balancer) || shards.iter().any(|s| u64::from(*s) == port);
        if !ours || row["class"] != "upgraded" {
            continue; // health polls, and whatever else runs here
        }
        let leg = row["leg_id"].as_u64().unwrap_or_else(|| panic!("no leg id: {row}"));
        ends.entry(leg).or_default().push((port, row["role"].as_str().expect("a role")));
    }
    assert_eq!(ends.len(), CLIENTS, "one leg id for each client");
    for (leg, found) in ends {
        let found: HashSet<_> = found.into_iter().collect();
        let shard = found.iter().map(|end| end.0).find(|port| *port != u64::from(balancer));
        let shard = shard.unwrap_or_else(|| panic!("{leg} has one leg only: {found:?}"));
        let balancer = u64::from(balancer);
        let expected = [balancer, shard].map(|port| [(port, "active"), (port, "passive")]);
        assert_eq!(found, expected.into_iter().flatten().collect(), "{leg}");
    }
}

#[test]
fn the_labs_balancer() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("legs-lab");
    let shards =
        [0, 1, 2].map(|_| Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]));
    let addresses: Vec<String> = shards.iter().map(|s| s.address().to_string()).collect();
    let mut args = vec!["balance", "--listen", "127.0.0.1:0"];
    for address in &addresses {
        args.extend(["--shard", address]);
    }
    let balancer = Server::start(&Place::host(), &args);
    let recorded = record(&scratch, balancer.address().port());
    let ports: Vec<u16> = shards.iter().map(|shard| shard.address().port()).collect();
    assert_linked(&recorded, balancer.address().port(), &ports);
    let _ = balancer.stop();
}

/// Recorded are all legs; what the balancer reports is held against its clients' alone.
#[test]
fn a_balancers_report_is_about_its_own_port() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("legs-report");
    let shards =
        [0, 1].map(|_| Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]));
    let [first, second] = shards.each_ref().map(|shard| shard.address().to_string());
    let args = ["balance", "--listen", "127.0.0.1:0", "--shard", &first, "--shard", &second];
    let balancer = Server::start(&Place::host(), &args);
    let port = balancer.address().port();
    let ports = [&shards[0], &shards[1]].map(|shard| shard.address().port().to_string()).join(",");
    let (ports, health) = (format!("{port},{ports}"), format!("http://127.0.0.1:{port}/health"));
    let capture = scratch.join("capture");
    let recording = Recording::start(&capture, &["--port", &ports, "--health", &health]);
    let url = format!("ws://127.0.0.1:{port}/");
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &url, "--connections", "40", "--ramp", "400/s", "--hold", "8s"]);
    let load = Running::start(&mut load);
    wait_equal("clients", &CLIENTS, || {
        ss(&Place::host(), "established", &format!("sport = :{port}"))
    });
    // While it runs, told by what the balancer lists as its shards.
    let mut watch = probe::command();
    watch.args(["watch", "--port", &ports, "--health", &health, "--json"]);
    let watched = finish(watch.args(["--interval", "1s", "--duration", "2s"]));
    let watched = watched.success("probe watch");
    let blocks: Vec<Value> = watched
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["type"] == "block")
        .collect();
    assert!(!blocks.is_empty(), "{watched}");
    for block in blocks {
        let counts = [&block["reported"], &block["kernel"]["established"]];
        assert_eq!(counts, [&Value::from(CLIENTS), &Value::from(CLIENTS)], "{block}");
    }
    assert_eq!(load.wait(Duration::from_secs(30)).code, Some(0));
    let _ = recording.stop();

    // Afterwards, told by the legs.
    let mut analyzer = Command::new(binary("analyzer"));
    let _ = finish(analyzer.args(["report", &capture])).success("analyzer report");
    let found = std::fs::read_to_string(format!("{capture}/report.json")).expect("a report");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let server = &found["captures"][0]["servers"][0];
    let told = ["population_label", "reported_peak"].map(|field| &server[field]);
    let label = format!("passive connections to port {port}");
    assert_eq!(told, [&Value::from(label), &Value::from(CLIENTS)], "{server}");
    let most = ["phantoms", "reverse_phantoms"].map(|kind| &server[kind]["peak"]);
    assert_eq!(most, [&Value::from(0), &Value::from(0)], "{server}");
}

#[test]
fn nginx() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("nginx")]) else { return };
    let scratch = Scratch::new("legs-nginx");
    let shard = Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let (port, upstream) = (free_port(), shard.address());
    let _nginx = Nginx::start(
        &Place::host(),
        port,
        &format!(
            "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{upstream};\n\
             proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection upgrade; }} }}"
        ),
    );
    assert_linked(&record(&scratch, port), port, &[upstream.port()]);
}

#[test]
fn haproxy() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("haproxy")]) else { return };
    let scratch = Scratch::new("legs-haproxy");
    let shard = Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let (port, upstream) = (free_port(), shard.address());
    let configuration = scratch.join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
         backend b\n  server shard {upstream}\n"
    );
    std::fs::write(&configuration, text).expect("a temporary file");
    let mut command = Place::host().command("haproxy");
    let _haproxy = Running::start(command.args(["-db", "-f", &configuration]));
    wait_equal("haproxy listens", &1, || {
        ss(&Place::host(), "listening", &format!("sport = :{port}"))
    });
    assert_linked(&record(&scratch, port), port, &[upstream.port()]);
}
