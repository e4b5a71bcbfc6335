//! A capture holds every connection of the recording, with how it ended; and what was written before
//! the recorder was killed stays readable.

use std::process::Command;
use std::time::Duration;

use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::packed;
use e2e::peer::{Peer, Reaped};
use e2e::process::{Running, Signal, binary, finish};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use serde_json::Value;

const PORT: &str = "8080";

fn record(directory: &str) -> Running {
    let mut command = Command::new(binary("probe"));
    let record = Running::start(command.args(["record", "-o", directory, "--port", PORT]));
    record.wait_stderr("recording");
    record
}

/// The passive connections of the capture, as `analyzer connections` prints them.
fn passive(directory: &str) -> Vec<Value> {
    let mut command = Command::new(binary("analyzer"));
    command.args(["connections", directory, "--json", "--role", "passive", "--port", PORT]);
    let text = finish(&mut command).success("analyzer connections");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(rows: &[Value], fits: impl Fn(&Value) -> bool) -> usize {
    rows.iter().filter(|row| fits(row)).count()
}

#[test]
fn every_connection_is_written_once_with_its_ending() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("record");
    let capture = scratch.join("capture");
    let cable = Cable::new();
    let (server_place, client_place) = (cable.server.place(), cable.client.place());
    let (mut server, mut client) = (Peer::start(&server_place), Peer::start(&client_place));
    server.listen("0.0.0.0:8080");
    client.connect("10.77.0.1:8080", 97);
    server.wait_held(97);

    let record = record(&capture);
    client.connect("10.77.0.1:8080", 900);
    server.wait_held(997);
    client.fin(400);
    server.wait_reaped(Reaped { fin: 400, ..Reaped::default() });
    client.rst(300);
    server.wait_reaped(Reaped { rst: 300, ..Reaped::default() });
    // The server's turn: its FINs go first.
    server.fin(100);
    client.wait_reaped(Reaped { fin: 100, ..Reaped::default() });
    cable.cut();
    server.send_with_timeout(300);
    server.wait_reaped(Reaped { timeout: 197, ..Reaped::default() });
    assert_eq!(record.stop(Signal::INT).code, Some(130));

    let rows = passive(&capture);
    assert_eq!(rows.len(), 997);
    assert_eq!(number(&rows, |row| row["seeded"] == true), 97);
    let ended = |by: &str, how: &str| {
        number(&rows, |row| row["closed_by"] == by && row["closed_how"] == how)
    };
    assert_eq!(
        [ended("remote", "fin"), ended("remote", "rst"), ended("local", "fin")],
        [400, 300, 100]
    );
    assert_eq!(number(&rows, |row| row["closed_how"] == "timeout"), 197);
    assert_eq!(number(&rows, |row| row["error"] == "ETIMEDOUT"), 197);
    assert_eq!(number(&rows, |row| row["seeded"] == false && !row["accepted_ns"].is_null()), 900);
    let mut cookies: Vec<u64> = rows.iter().map(|row| row["cookie"].as_u64().unwrap()).collect();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), 997);
}

#[test]
fn what_was_recorded_before_a_kill_is_readable() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("killed");
    let capture = scratch.join("capture");
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let record = record(&capture);
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(23);
    client.fin(23);
    server.wait_reaped(Reaped { fin: 23, ..Reaped::default() });
    // The recorder flushes every second.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(record.stop(Signal::KILL).code, None);
    assert_eq!(passive(&capture).len(), 23);
}

/// A leg with every stage, packed, and nothing of it lost.
#[test]
fn a_packed_recording_takes_64_bytes_a_leg_and_says_the_same() {
    const CLIENTS: &str = "4000";
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("packed-recording");
    let capture = scratch.join("capture");
    let server = Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port().to_string();
    let recording = Recording::start(&capture, &["--port", &port, "--role", "passive"]);
    let url = format!("ws://{}/", server.address());
    let load = ["load", "--url", &url, "--connections", CLIENTS, "--ramp", "1000/s"];
    let stay = ["--stay", "3s", "--message-interval", "400ms"];
    let load = [&load[..], &stay].concat();
    let totals = lab::run(&Place::host(), &load, Duration::from_secs(120));
    assert_eq!(totals["upgraded"], 4000, "{totals}");
    let rows = recording.stop().rows;
    assert_eq!(number(&rows, |row| row["outcome"] == "upgraded"), 4000);
    assert_eq!(number(&rows, |row| !row["first_frame_in_ns"].is_null()), 4000);
    packed::check(&capture, &scratch.join("packed"));
}
