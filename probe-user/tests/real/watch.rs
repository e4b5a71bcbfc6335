//! What a server reports against what the kernel has, end to end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::common::{Health, Held, Watching, json_lines};

fn watch<'a>(health: &'a str, port: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["watch", "--json", "--health", health, "--port", port, "--interval", "500ms"];
    [&args[..], more].concat()
}

fn begin(health: &Health, held: &Held, more: &[&str]) -> Watching {
    let (url, port) = (health.url(), held.address.port().to_string());
    Watching::start(&watch(&url, &port, more), health)
}

fn blocks(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["type"] == "block").collect()
}

#[test]
fn a_healthy_server_has_no_phantoms() {
    let mut held = Held::open("127.0.0.1:0", 23);
    let health = Health::reporting(23);
    let watching = begin(&health, &held, &["--duration", "6s"]);
    held.add(20);
    health.report(43);
    thread::sleep(Duration::from_secs(1));
    held.close(20);
    health.report(23);
    let output = watching.wait();
    let lines = json_lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    let blocks = blocks(&lines);
    assert!(blocks.len() >= 3);
    for block in &blocks {
        assert_eq!(block["phantoms"]["count"], 0, "{block}");
        assert_eq!(block["verdict"], "ok", "{block}");
    }
    let end = lines.last().unwrap();
    assert_eq!(end["stopped_by"], "--duration");
    assert_eq!(end["kernel"]["back"], true);
    assert_eq!(end["reported"]["back"], true);
}

#[test]
fn phantoms_are_counted_to_the_one_and_cross_the_threshold() {
    let mut held = Held::open("127.0.0.1:0", 0);
    let health = Health::reporting(0);
    let watching = begin(&health, &held, &["--until-idle", "--expect", "100", "--duration", "60s"]);
    held.add(100);
    health.report(100);
    thread::sleep(Duration::from_secs(1));
    held.close(45);
    thread::sleep(Duration::from_secs(2));
    held.close(55);
    health.report(45);
    let output = watching.wait();
    let lines = json_lines(&output);
    assert_eq!(output.status.code(), Some(99), "{lines:#?}");
    let last = blocks(&lines).into_iter().rfind(|block| block["reported"] == 100).unwrap();
    assert_eq!(last["kernel"]["established"], 55);
    assert_eq!(last["phantoms"]["count"], 45);
    assert_eq!(last["verdict"], "investigate");
    assert!(!last["next_checks"].as_array().unwrap().is_empty());
    assert_eq!(last["ramp"]["reached"], 100);
    assert_eq!(last["ramp"]["done"], true);
    let grew = "phantoms grew from 0 to 45";
    let warned = blocks(&lines).iter().any(|block| block["warnings"][0] == grew);
    assert!(warned, "{lines:#?}");
    let end = lines.last().unwrap();
    assert_eq!(end["stopped_by"], "--until-idle");
    assert_eq!((&end["kernel"]["back"], &end["reported"]["back"]), (&true.into(), &false.into()));
    assert_eq!(end["worst_phantoms"]["count"], 45);
}

#[test]
fn the_polls_own_connection_is_not_counted() {
    // The health answers on the watched port itself.
    let health = Health::reporting(0);
    let (url, port) = (health.url(), health.address.port().to_string());
    let args = watch(&url, &port, &["--duration", "3s", "--max-phantoms", "0"]);
    let output = Watching::start(&args, &health).wait();
    let lines = json_lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    for block in blocks(&lines) {
        assert_eq!(block["kernel"]["established"], 0, "{block}");
        assert_eq!(block["phantoms"]["reverse"], 0, "{block}");
    }
}

#[test]
fn another_monitors_idle_connection_is_plain_http() {
    let health = Health::reporting(0);
    let (url, port) = (health.url(), health.address.port().to_string());
    let args = watch(&url, &port, &["--duration", "6s", "--max-phantoms", "0"]);
    let watching = Watching::start(&args, &health);
    let mut monitor = TcpStream::connect(health.address).unwrap();
    monitor.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(monitor.read(&mut [0; 1024]).unwrap() > 0);
    let output = watching.wait();
    let lines = json_lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    let last = *blocks(&lines).last().unwrap();
    if last["kernel"]["backend"] == "sock_diag" {
        eprintln!("skipped: no eBPF on this host, so nothing tells HTTP from WebSockets");
        return;
    }
    assert_eq!(last["kernel"]["established"], 0, "{last}");
    assert_eq!(last["kernel"]["plain_http"], 1, "{last}");
    assert_eq!(last["phantoms"]["reverse"], 0, "{last}");
    drop(monitor);
}

#[test]
fn a_health_that_fails_later_is_unavailable_and_never_a_number() {
    let held = Held::open("127.0.0.1:0", 3);
    let health = Health::reporting(3);
    let watching = begin(&health, &held, &[]);
    // Some blocks that can be judged, then some that cannot.
    let asked = health.asked();
    while health.asked() < asked + 2 {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(500));
    health.say("");
    thread::sleep(Duration::from_secs(3));
    let output = watching.interrupt();
    let lines = json_lines(&output);
    let last = *blocks(&lines).last().unwrap();
    assert!(last["reported"].is_null() && last["phantoms"].is_null(), "{last}");
    assert_eq!(last["reported_error"], "status 503");
    assert_eq!(last["verdict"], "unavailable");
    assert_eq!(lines.last().unwrap()["stopped_by"], "SIGINT");
    assert_eq!(output.status.code(), Some(130), "{lines:#?}");
}

#[test]
fn reverse_phantoms_are_no_phantoms() {
    let held = Held::open("127.0.0.1:0", 23);
    let health = Health::reporting(16);
    let watching = begin(&health, &held, &["--duration", "4s"]);
    let output = watching.wait();
    let lines = json_lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("kernel (23) and reported (16) are 7 apart already"), "{stderr}");
    for block in blocks(&lines) {
        assert_eq!(block["phantoms"]["count"], 0);
        assert_eq!(block["phantoms"]["reverse"], 7);
    }
}
