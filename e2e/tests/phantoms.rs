//! Each kind of phantom, made by a fault of the lab's server that hits a known set of connections, is
//! found with its exact number; the same runs without the fault, and a busy healthy server, have none.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require, require_beside_others};
use e2e::net::Place;
use e2e::process::{Running, Signal, binary, finish};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use serde_json::Value;

fn findings(report: &Value) -> Vec<(String, i64)> {
    let servers = report["captures"][0]["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 1);
    let findings = servers[0]["findings"].as_array().unwrap().iter();
    findings
        .map(|f| (f["kind"].as_str().unwrap().to_owned(), f["count"].as_i64().unwrap()))
        .collect()
}

/// With the fault: exactly `count` of `kind`. Without it: nothing.
fn found_and_fixed(scenario: &str, kind: &str, count: i64) {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let faulty = lab::scenario(scenario, &[]).exited(99);
    let summary = &faulty.summary;
    assert_eq!(findings(&faulty.report), [(kind.to_owned(), count)]);
    assert_eq!(summary["truth"][kind], count);
    assert_eq!(summary["wrongly_named"], Value::Array(vec![]));

    let fixed = lab::scenario(scenario, &["--fixed", "--time-scale", "0.4"]).exited(0);
    assert_eq!(findings(&fixed.report), []);
}

#[test]
fn application_leak_on_rst() {
    found_and_fixed("app-leak-rst", "application_leak", 23);
}

#[test]
fn application_leak_without_a_close_frame() {
    found_and_fixed("app-leak-no-close-frame", "application_leak", 23);
}

#[test]
fn application_leak_on_timeout() {
    found_and_fixed("app-leak-timeout", "application_leak", 23);
}

#[test]
fn double_decrement() {
    found_and_fixed("double-decrement", "double_decrement", 23);
}

#[test]
fn descriptor_leak_after_rst() {
    found_and_fixed("descriptor-leak", "descriptor_leak", 23);
}

#[test]
fn descriptor_leak_in_close_wait() {
    found_and_fixed("close-wait", "descriptor_leak", 23);
}

#[test]
fn half_open() {
    found_and_fixed("half-open", "half_open", 23);
}

#[test]
fn reverse_phantom() {
    found_and_fixed("reverse-phantom", "reverse_phantom", 23);
}

/// The demo's promise: 45 application leaks, born together, ended by RSTs of the clients.
#[test]
fn demo() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let demo = lab::scenario("demo", &[]).exited(0);
    let report = &demo.report;
    assert_eq!(demo.summary["equal"], true);
    assert_eq!(findings(report), [("application_leak".to_owned(), 45)]);
    let server = &report["captures"][0]["servers"][0];
    let births = server["findings"][0]["births"].as_array().unwrap();
    assert_eq!(births.iter().map(|b| b["count"].as_i64().unwrap()).sum::<i64>(), 45);
    let ended: i64 = births
        .iter()
        .flat_map(|birth| birth["ended"].as_array().unwrap())
        .filter(|ended| ended["how"] == "rst" && ended["by"] == "remote")
        .map(|ended| ended["count"].as_i64().unwrap())
        .sum();
    assert_eq!(ended, 45, "{births:#?}");
}

/// 200 connects and 200 closes a second while the health is polled: whatever the polls fall between,
/// nobody is accused.
#[test]
fn a_busy_healthy_server_has_no_phantoms() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("busy");
    let place = Place::host();
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:18090"]);
    let capture = scratch.join("capture");
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--port", "18090", "--interval", "100ms"]);
    record.args(["--health", "http://127.0.0.1:18090/health"]);
    let record = Running::start(&mut record);
    record.wait_stderr("recording");

    // Two in turns: while one opens at 200/s, the other's connections close.
    let load =
        ["load", "--url", "ws://127.0.0.1:18090/", "--ramp", "200/s", "--connections", "400"];
    let rounds = |offset: Duration| {
        std::thread::sleep(offset);
        (0..5)
            .map(|_| {
                let done = lab::run(
                    &place,
                    &[&load[..], &["--hold", "0s", "--end", "rst:50%", "--end-at", "0s"]].concat(),
                    Duration::from_secs(60),
                );
                done["upgraded"].as_i64().unwrap()
            })
            .sum::<i64>()
    };
    let upgraded: i64 = std::thread::scope(|scope| {
        let turns = [Duration::ZERO, Duration::from_secs(1)];
        let handles = turns.map(|offset| scope.spawn(move || rounds(offset)));
        handles.into_iter().map(|handle| handle.join().unwrap()).sum()
    });
    assert_eq!(upgraded, 4000);

    assert_eq!(record.stop(Signal::INT).code, Some(130));
    let mut report = Command::new(binary("analyzer"));
    report.args(["report", &capture, "--max-phantoms", "0", "-o", &scratch.join("report")]);
    let finished = finish(&mut report);
    assert_eq!(finished.code, Some(0), "{finished}");
    let report = fs::read(scratch.path().join("report/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(findings(&report), []);
    let judged = report["captures"][0]["servers"][0]["judged"].as_i64().unwrap();
    assert!(judged > 50, "only {judged} samples were judged");
    let _ = server.stop();
}

/// Nobody was asked what is open: there is nothing to hold the kernel's count against, which is no
/// success.
#[test]
fn a_recording_without_a_report_is_inconclusive() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("unasked");
    let capture = scratch.join("capture");
    let server = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port().to_string();
    let recording = Recording::start(&capture, &["--port", &port]);
    let url = format!("ws://{}/", server.address());
    let load = ["load", "--url", &url, "--connections", "23", "--hold", "1s"];
    let _ = lab::run(&Place::host(), &load, Duration::from_secs(60));
    assert_eq!(recording.stop().rows.iter().filter(|row| row["role"] == "passive").count(), 23);
    let finished = finish(Command::new(binary("analyzer")).args(["phantoms", &capture]));
    assert_eq!(finished.code, Some(4), "{finished}");
    let words = finished.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("--health"), "what would decide it: {finished}");
}
