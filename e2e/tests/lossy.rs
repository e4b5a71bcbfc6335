//! A path that loses packets at random, and a listener that answers with SYN cookies: what fails is
//! laid on the path and on nobody else, and what comes about is told.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use serde_json::Value;

/// Ports of the clients with this outcome, as the clients saw it.
fn ports(results: &str, upgraded: bool) -> BTreeSet<u64> {
    let text = std::fs::read_to_string(results).expect("the clients' results");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    lines
        .filter(|line| (line["outcome"] == "upgraded") == upgraded)
        .filter_map(|line| line["local_port"].as_u64())
        .collect()
}

#[test]
fn what_fails_for_lost_packets_is_laid_on_the_path() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("iptables")]) else { return };
    let scratch = Scratch::new("lossy");
    let cable = Cable::new();
    let address = format!("{}:0", Cable::SERVER);
    let server = Server::start(&cable.server.place(), &["serve", "--listen", &address]);
    let recording = Recording::start(&scratch.join("capture"), &[]);

    cable.server.lose(0.35);
    cable.client.lose(0.35);
    let results = scratch.join("results.jsonl");
    let url = format!("ws://{}/", server.address());
    // TCP sends again after 0.2, 0.6, 1.4 and 3 s: nobody leaves just when a packet comes through.
    let load = ["load", "--url", &url, "--connections", "300", "--ramp", "100/s", "--hold", "3s"];
    let patience = ["--connect-timeout", "2200ms", "--handshake-timeout", "2200ms"];
    let report = [&load[..], &patience, &["-o", &results]].concat();
    let _ = lab::run(&cable.client.place(), &report, Duration::from_secs(120));
    cable.server.lose(0.0);
    cable.client.lose(0.0);

    let recorded = recording.stop();
    let port = server.address().port();
    let upgraded = ports(&results, true);
    assert!(upgraded.len() > 50, "{} upgraded", upgraded.len());
    let mut failed = 0;
    for attempt in recorded.attempts(port) {
        let client = attempt["remote_port"].as_u64().expect("a port");
        let outcome = attempt["outcome"].as_str().expect("an outcome");
        if upgraded.contains(&client) {
            assert_eq!(outcome, "upgraded", "{attempt}");
        } else if attempt["cause"] != Value::Null {
            assert_eq!(attempt["cause"], "packet_loss", "{attempt}");
            failed += 1;
        }
    }
    assert!(failed > 20, "{failed} failed");
    let report = recorded.handshakes(&[port]);
    assert_eq!(report["failed"], failed);
    assert_eq!(report["causes"].as_array().map(Vec::len), Some(1), "{:#}", report["causes"]);
}

#[test]
fn syn_cookies_are_told() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("cookies");
    let cable = Cable::new();
    let address = format!("{}:0", Cable::SERVER);
    let server = Server::start(&cable.server.place(), &["serve", "--listen", &address]);
    let url = format!("ws://{}/", server.address());
    let port = server.address().port();
    let recording = Recording::start(&scratch.join("capture"), &[]);
    // 0: never. 2: for every SYN, as 1 does once the queue is full.
    for (cookies, clients) in [("0", "13"), ("2", "23")] {
        cable.server.sysctl("net/ipv4/tcp_syncookies", cookies);
        let results = scratch.join(cookies);
        let args = ["load", "--url", &url, "--connections", clients, "--ramp", "100/s"];
        let args = [&args[..], &["--hold", "1s", "-o", &results]].concat();
        let _ = lab::run(&cable.client.place(), &args, Duration::from_secs(60));
    }
    let recorded = recording.stop();
    let report = recorded.handshakes(&[port]);
    assert_eq!([&report["upgraded"], &report["failed"], &report["syn_cookies"]], [36, 0, 23]);
    for (cookies, answered) in [("0", true), ("2", false)] {
        for client in ports(&scratch.join(cookies), true) {
            let row = recorded.passive(client as u16, port);
            assert_eq!(row["syn_ack_sent_ns"].is_i64(), answered, "{row}");
        }
    }
}
