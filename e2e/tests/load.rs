//! Scenarios of load against a healthy and a sick server: what the clients and the kernel saw, and
//! what the thresholds of the scenario make of it.

use std::process::Command;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::Place;
use e2e::process::{Running, Signal, binary, finish};
use e2e::scratch::Scratch;
use serde_json::Value;

/// 100 clients, all of them served. How fast is a matter of the machine, and is not asserted.
#[test]
fn quick() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let healthy = lab::scenario("quick", &["--time-scale", "0.1"]);
    let clients = &healthy.report["clients"];
    assert_eq!((&clients["attempted"], &clients["successful"]), (&100.into(), &100.into()));
    assert_eq!((&clients["kernel"]["attempted"], &clients["matched"]), (&100.into(), &100.into()));
    assert_eq!(healthy.threshold("clients.success_rate"), "held");
    let trip = &clients["round_trip"];
    let ms = |name: &str| trip[name].as_f64().unwrap();
    assert!(0.0 < ms("min_ms") && ms("min_ms") <= ms("mean_ms") && ms("mean_ms") <= ms("max_ms"));
    // Each client's start to upgraded, and the stages in between that the kernel saw.
    assert_eq!(clients["stages"].as_array().unwrap().len(), 6, "{clients}");

    let sick =
        lab::scenario("quick", &["--time-scale", "0.1", "--fault", "shed-load:20%"]).exited(99);
    assert_eq!(sick.threshold("clients.success_rate"), "crossed");
    let clients = &sick.report["clients"];
    assert_eq!((&clients["failed"], &clients["kernel"]["failed"]), (&20.into(), &20.into()));
    assert_eq!(clients["errors"][0]["kind"], "http_503");
}

#[test]
fn validate_100() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let _healthy = lab::scenario("validate-100", &["--time-scale", "0.02"]).exited(0);
    let sick =
        lab::scenario("validate-100", &["--time-scale", "0.02", "--fault", "double-decrement:30%"])
            .exited(99);
    assert_eq!(sick.threshold("end.reported"), "crossed");
}

/// A server that keeps its word in everything; and one that forgets half of the clients that leave, so
/// that it never comes back to 0.
#[test]
fn validate_1k() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let scale = ["--time-scale", "0.03", "--count-scale", "0.2"];
    let healthy = lab::scenario("validate-1k", &scale);
    assert_eq!(healthy.report["clients"]["successful"], 200);
    healthy.held_but_for_speed();

    let sick = ["--fault", "double-decrement:20%"];
    let sick = lab::scenario("validate-1k", &[&scale[..], &sick].concat()).exited(99);
    assert_eq!(sick.threshold("end.reported"), "crossed");
}

/// Small, middle and large, with pauses: each of them is judged, and the first that fails decides.
#[test]
fn progressive() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let of = ["quick", "medium", "stress"];
    let scale = ["--time-scale", "0.01", "--count-scale", "0.05"];
    lab::sequence("progressive", &of, &scale).held_but_for_speed();

    let sick = [&scale[..], &["--fault", "shed-load:20%"]].concat();
    let sick = lab::sequence("progressive", &of, &sick);
    assert_eq!(sick.exited_with(99, "clients.success_rate"), ["crossed"; 3]);
    assert_eq!(sick.judged(), [99; 3]);
}

/// Three shards behind a balancer are equally full; a balancer that turns clients away is told.
#[test]
fn balancer_12k() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let scale = ["--time-scale", "0.1", "--count-scale", "0.05"];
    let healthy = lab::scenario("balancer-12k", &scale);
    assert_eq!(healthy.report["clients"]["successful"], 600);
    healthy.held_but_for_speed();

    let sick = ["--fault", "slot-race:10%"];
    let sick = lab::scenario("balancer-12k", &[&scale[..], &sick].concat()).exited(99);
    assert_eq!(sick.threshold("clients.success_rate"), "crossed");
    assert_eq!(sick.report["clients"]["failed"], 60);
    assert_eq!(sick.report["clients"]["errors"][0]["kind"], "http_503");
}

/// Clients that come and go: flat on a healthy server; on one that closes only some of its sockets,
/// descriptors grow.
#[test]
fn smoke() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let scale = ["--time-scale", "0.01"];
    let healthy = lab::scenario("smoke-30m", &scale);
    assert_eq!(healthy.threshold("leaks.descriptors_per_minute"), "held");
    assert_eq!(healthy.threshold("leaks.goroutines_per_minute"), "held");
    // A block each "2 min", with what has grown since the baseline.
    let said = healthy.said();
    let checkpoint = said.lines().find(|line| line.contains("[3/15] "));
    let checkpoint = checkpoint.unwrap_or_else(|| panic!("no third checkpoint: {said}"));
    assert!(said.contains("Baseline: GOR=") && said.contains("  phantoms         0 "), "{said}");
    assert!(checkpoint.contains(" GOR=") && checkpoint.contains("/min) FD="), "{checkpoint}");

    // Long enough that the seconds after the last client do not look like an end of the growth.
    let sick = ["--time-scale", "0.02", "--fault", "never-close:50%"];
    let sick = lab::scenario("smoke-30m", &sick).exited(99);
    assert_eq!(sick.threshold("leaks.descriptors_per_minute"), "crossed");
    let leaks = &sick.report["captures"][0]["leaks"];
    let followed = leaks["followed"].as_array().unwrap();
    let descriptors = followed.iter().find(|one| one["name"] == "descriptors").unwrap();
    assert_eq!(descriptors["shape"], "growth");
    // Of ten clients a second four leave without a close frame, and half of these are never closed.
    let rate = descriptors["per_minute"].as_f64().unwrap();
    assert!((90.0..=150.0).contains(&rate), "{rate}");

    // The same from the capture alone, as a table for a pull request.
    let capture = sick.path("capture").display().to_string();
    let mut command = Command::new(binary("analyzer"));
    command.args(["leaks", &capture, "--markdown"]);
    let finished = finish(&mut command);
    assert_eq!(finished.code, Some(99), "{finished}");
    assert!(finished.stdout.contains("| Metric | Baseline | Final | Growth | Rate/min |"));
    assert!(finished.stdout.contains("| descriptors |"), "{finished}");
}

#[test]
fn custom() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let arguments = ["--connections", "23", "--ramp", "50", "--hold", "2s", "--heartbeat", "500ms"];
    let run = lab::scenario("custom", &arguments).exited(0);
    assert_eq!(run.report["clients"]["successful"], 23);
    let sick = ["--connections", "43", "--hold", "8s", "--fault", "reverse-phantom:100%"];
    let sick = lab::scenario("custom", &sick).exited(99);
    assert_eq!(sick.threshold("reverse phantoms"), "crossed");
    assert_eq!(sick.report["captures"][0]["servers"][0]["reverse_phantoms"]["peak"], 43);
    let mut refused = lab::command(&Place::host());
    refused.args(["run", "quick", "--connections", "5", "-o", "never-made"]);
    let finished = finish(&mut refused);
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("belong to `lab run custom`"), "{finished}");
}

/// A server that is killed under load is a finding, whatever share of its clients was upgraded; one that
/// only ends some connections is alive.
#[test]
fn a_server_that_dies() {
    const CLIENTS: u64 = 23;

    let Some(_machine) = require_beside_others(&[Need::Root]) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("dies"));
    let start = |faults: &[&str], hold: &str| {
        let serve = [&["serve", "--listen", "127.0.0.1:0"], faults].concat();
        let server = lab::Server::start(&place, &serve);
        let mut load = lab::command(&place);
        load.args(["load", "--url", &format!("ws://{}/", server.address()), "--json"]);
        load.args(["--hold", hold, "--connections", &CLIENTS.to_string()]);
        (server, load)
    };
    let (server, mut load) = start(&[], "10m");
    let load = Running::start(load.args(["-o", &scratch.join("results.jsonl")]));
    load.wait_stderr(&format!("{CLIENTS}/{CLIENTS} upgraded"));
    let killed = std::time::SystemTime::now();
    drop(server);
    let finished = load.wait(std::time::Duration::from_secs(30));
    assert_eq!(finished.code, Some(99), "{finished}");
    let says = format!("it ended {CLIENTS} open connections, and refused new ones");
    assert!(finished.stderr.contains(&says), "{finished}");
    let summary: Value = serde_json::from_str(&finished.stdout).expect("a summary");
    let died = &summary["server_died"];
    assert_eq!(died["connections"], CLIENTS, "{summary}");
    let at = died["at_unix_ns"].as_u64().expect("a time");
    let killed =
        killed.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    assert!((killed..killed + 1_000_000_000).contains(&at), "{at}, killed at {killed}");

    let (_server, mut load) = start(&["--fault", "close-after-upgrade:100%"], "1s");
    let finished = finish(load.args(["--min-success", "0"]));
    let summary: Value = serde_json::from_str(&finished.stdout).expect("a summary");
    assert_eq!((finished.code, &summary["server_died"]), (Some(0), &Value::Null), "{finished}");
}

/// Behind a balancer, which goes on listening, a server that is killed takes the connections along that it
/// held, and no others.
#[test]
fn a_server_that_dies_behind_a_balancer() {
    const CLIENTS: u64 = 23;

    let Some(_machine) = require_beside_others(&[Need::Root]) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("cut"));
    let serve = || lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let (killed, other) = (serve(), serve());
    let shards = [killed.address(), other.address()].map(|address| address.to_string());
    let balance =
        ["balance", "--listen", "127.0.0.1:0", "--shard", &shards[0], "--shard", &shards[1]];
    let balancer = lab::Server::start(&place, &balance);
    let mut load = lab::command(&place);
    load.args(["load", "--url", &format!("ws://{}/", balancer.address()), "--json"]);
    load.args(["--hold", "8s", "--connections", &CLIENTS.to_string()]);
    let load = Running::start(load.args(["-o", &scratch.join("results.jsonl")]));
    load.wait_stderr(&format!("{CLIENTS}/{CLIENTS} upgraded"));
    let at = std::time::SystemTime::now();
    drop(killed);
    let finished = load.wait(std::time::Duration::from_secs(60));
    assert_eq!(finished.code, Some(99), "{finished}");
    let summary: Value = serde_json::from_str(&finished.stdout).expect("a summary");
    assert!(summary["server_died"].is_null(), "{summary}");
    let stayed = other.stop()["upgraded"].as_u64().expect("a count");
    let cut_off = &summary["cut_off"];
    assert_eq!(
        (&cut_off["connections"], &cut_off["of_open"]),
        (&(CLIENTS - stayed).into(), &CLIENTS.into())
    );
    assert!((1..CLIENTS).contains(&stayed), "{summary}");
    let says = format!(" {} of {CLIENTS} open connections, within a second", CLIENTS - stayed);
    assert!(finished.stderr.contains(&says), "{finished}");
    let at = at.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seen = cut_off["at_unix_ns"].as_u64().expect("a time");
    assert!((at..at + 1_000_000_000).contains(&seen), "{seen}, killed at {at}");
}

/// A server that stands still for three seconds is slow to every message that was sent meanwhile, and to the
/// first of them for the longest.
#[test]
fn a_stall_is_slow_to_all_that_was_sent_in_it() {
    const STALL: std::time::Duration = std::time::Duration::from_secs(3);

    let Some(_machine) = require_beside_others(&[Need::Root]) else { return };
    let place = Place::host();
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let mut load = lab::command(&place);
    let scratch = Scratch::new("stall");
    let results = scratch.join("results.jsonl");
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--json", "-o", &results]);
    // It leaves in the middle between two messages.
    load.args(["--connections", "5", "--message-interval", "300ms", "--hold", "12150ms"]);
    let load = Running::start(&mut load);
    load.wait_stderr("5/5 upgraded");
    server.signal(Signal::STOP);
    std::thread::sleep(STALL);
    server.signal(Signal::CONT);
    let finished = load.wait(std::time::Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{finished}");
    let summary: Value = serde_json::from_str(&finished.stdout).expect("a summary");
    let of = |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("{name}: {summary}"));
    assert_eq!(
        (of("rtt_count"), of("messages_received")),
        (of("messages_sent"), of("messages_sent"))
    );
    // Ten of each client's, by 300 ms less each.
    let (longest, mean) = (STALL.as_micros() as f64, of("rtt_mean_us"));
    assert!(of("rtt_max_us") > longest - 300e3, "{summary}");
    assert!(mean * of("rtt_count") > 5.0 * 10.0 * (longest / 2.0 - 300e3), "{summary}");
    // A quarter of all messages was sent in it.
    let mut clients = Command::new(binary("analyzer"));
    let clients = finish(clients.args(["clients", "--json", "--client", &results])).stdout;
    let clients: Value = serde_json::from_str(&clients).expect("a report");
    let trips = &clients["round_trip"];
    assert_eq!(trips["count"], summary["rtt_count"]);
    let ms = |name: &str| trips[name].as_f64().unwrap_or_else(|| panic!("{name}: {trips}"));
    assert!(ms("p50_ms") < 1e3 && ms("p95_ms") > 2e3, "{trips}");
}
