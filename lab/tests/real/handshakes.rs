//! Each way in which a handshake fails, direct and behind the balancer: the clients see what they
//! should, and the truth names exactly those that were hit.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::common::{Server, lines, load, ports};

/// What 40 clients saw, and what the truth says.
struct Run {
    outcomes: BTreeMap<String, u64>,
    /// Client ports by outcome.
    seen: BTreeMap<String, BTreeSet<u64>>,
    /// Client ports by fault.
    truth: BTreeMap<String, BTreeSet<u64>>,
    records: Vec<Value>,
    health: Value,
}

fn run(server: &[&str], client: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let (truth, results) = (dir.path().join("truth.jsonl"), dir.path().join("results.jsonl"));
    let server = Server::start(&[server, &["--truth", truth.to_str().unwrap()]].concat());
    let (results_path, any) = (results.to_str().unwrap(), ["--min-success", "0"]);
    let shape = ["--connections", "40", "--ramp", "200/s", "-o", results_path];
    let hold: &[_] = if client.contains(&"--hold") { &[] } else { &["--hold", "300ms"] };
    load(server.address(), &[&shape[..], &any, hold, client].concat());
    let (records, hits) = (lines(&results), lines(&truth));
    let names = |lines: &[Value], field: &str| -> BTreeSet<String> {
        lines.iter().map(|line| line[field].as_str().unwrap().to_owned()).collect()
    };
    let seen: BTreeMap<_, _> = names(&records, "outcome")
        .into_iter()
        .map(|name| (name.clone(), ports(&records, "local_port", |r| r["outcome"] == name)))
        .collect();
    let truth = names(&hits, "fault")
        .into_iter()
        .map(|name| (name.clone(), ports(&hits, "client_port", |h| h["fault"] == name)))
        .collect();
    Run {
        outcomes: seen.iter().map(|(name, ports)| (name.clone(), ports.len() as u64)).collect(),
        seen,
        truth,
        health: server.json("/health"),
        records,
    }
}

fn direct(fault: &str, more: &[&str], client: &[&str]) -> Run {
    run(&[&["serve", "--listen", "127.0.0.1:0", "--fault", fault][..], more].concat(), client)
}

const BALANCE: &[&str] = &[
    "balance",
    "--listen",
    "127.0.0.1:0",
    "--spawn-shards",
    "--shard",
    "127.0.0.1:0",
    "--shard",
    "127.0.0.1:0",
];

fn balanced(flags: &[&str]) -> Run {
    run(&[BALANCE, flags].concat(), &[])
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn every_fault_of_a_server_hits_whom_it_says() {
    let impatient = ["--handshake-timeout", "700ms"];
    for (fault, outcome) in [
        ("unauthorized", "http_401"),
        ("forbidden-origin", "http_403"),
        ("wrong-path", "http_404"),
        ("shed-load", "http_503"),
        ("not-a-websocket-server", "http_200"),
        ("wrong-accept", "http_101_wrong_accept"),
        ("not-http", "not_http"),
        ("hang", "no_response_client_left"),
        ("reset-after-request", "no_response_server_reset"),
        ("close-after-request", "no_response_server_closed"),
        ("close-after-upgrade", "closed_right_after_upgrade"),
    ] {
        let run = direct(&format!("{fault}:17.5%"), &[], &impatient);
        assert_eq!(run.outcomes, counts(&[("upgraded", 33), (outcome, 7)]), "{fault}");
        assert_eq!(run.truth[fault], run.seen[outcome], "{fault}");
    }
}

#[test]
fn a_slow_response_is_slow_for_those_it_hits() {
    let run = direct("slow-response:7", &["--fault-delay", "400ms"], &[]);
    assert_eq!(run.outcomes, counts(&[("upgraded", 40)]));
    let took = |r: &Value, from: &str, to: &str| {
        r[to].as_i64().unwrap() - r[from].as_i64().unwrap() >= 400_000_000
    };
    let slow =
        ports(&run.records, "local_port", |r| took(r, "connected_unix_ns", "upgraded_unix_ns"));
    assert_eq!(slow, run.truth["slow-response"]);
    assert_eq!(slow.len(), 7);
}

#[test]
fn limits_write_their_truth_too() {
    let run = direct("hang:0", &["--max-connections", "31"], &[]);
    assert_eq!(run.outcomes, counts(&[("upgraded", 31), ("http_503", 9)]));
    assert_eq!(run.truth["capacity-limit"], run.seen["http_503"]);

    // 40 at 200/s are here within one second, give or take the change of the second.
    let run = direct("hang:0", &["--rate-limit", "10"], &[]);
    assert_eq!(run.truth["rate-limit"], run.seen["http_429"]);
    assert!([20, 30].contains(&run.outcomes["http_429"]), "{:?}", run.outcomes);
}

#[test]
fn every_fault_of_a_balancer_hits_whom_it_says() {
    for (fault, outcome) in [
        ("slot-race", "http_503"),
        ("balancer-sheds-load", "http_503"),
        ("dead-upstream", "http_502"),
        ("drop-upgrade-header", "http_426"),
        ("drop-key-header", "http_400"),
        ("rewrite-accept", "http_101_wrong_accept"),
        ("refuse-after-upgrade", "http_403"),
    ] {
        let run = balanced(&["--fault", &format!("{fault}:7")]);
        assert_eq!(run.outcomes, counts(&[("upgraded", 33), (outcome, 7)]), "{fault}");
        assert_eq!(run.truth[fault], run.seen[outcome], "{fault}");
    }
}

#[test]
fn causes_mix_and_keep_their_names() {
    let run = balanced(&[
        "--fault",
        "slot-race:10%",
        "--shard-fault",
        "2:forbidden-origin:5",
        "--shard-fault",
        "all:close-after-request:2",
    ]);
    let expected = [("http_403", 5), ("http_502", 4), ("http_503", 4), ("upgraded", 27)];
    assert_eq!(run.outcomes, counts(&expected));
    assert_eq!(run.truth["slot-race"], run.seen["http_503"]);
    assert_eq!(run.truth["forbidden-origin"], run.seen["http_403"]);
    assert_eq!(run.truth["close-after-request"], run.seen["http_502"]);
}

#[test]
fn slots_are_counted_over_all_processes() {
    let run = balanced(&["--slots", "13", "--workers", "3"]);
    assert_eq!(run.outcomes, counts(&[("upgraded", 26), ("http_503", 14)]));
    assert_eq!(run.truth["no-free-slot"], run.seen["http_503"]);
}

#[test]
fn leaked_slots_stay_taken() {
    let run = balanced(&["--fault", "slot-leak:11"]);
    assert_eq!(run.outcomes, counts(&[("upgraded", 40)]));
    assert_eq!(run.truth["slot-leak"].len(), 11);
    assert_eq!(run.health["total_connections"], 11);
    let shards = run.health["shards"].as_array().unwrap();
    let sum = |field: &str| shards.iter().map(|shard| shard[field].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("connections"), sum("capacity"), sum("available")), (11, 12_000, 11_989));
}

#[test]
fn a_balancer_out_of_ports_says_503() {
    let run = balanced(&["--upstream-ports", "50000-50009"]);
    // Each shard is another destination, so that every port serves one connection to each.
    assert_eq!(run.outcomes, counts(&[("upgraded", 20), ("http_503", 20)]));
    assert_eq!(run.truth["no-ephemeral-port"], run.seen["http_503"]);
}

#[test]
fn a_hanging_shard_is_a_timeout_of_the_balancer() {
    let run = balanced(&["--shard-fault", "1:hang:7", "--upstream-timeout", "300ms"]);
    assert_eq!(run.outcomes, counts(&[("upgraded", 33), ("http_504", 7)]));
    assert_eq!(run.truth["hang"], run.seen["http_504"]);
    assert_eq!(run.truth["upstream-timeout"], run.seen["http_504"]);
}

#[test]
fn a_stalled_accept_loop_leaves_clients_waiting() {
    let run = direct("hang:0", &["--accept-stall", "0s-1500ms"], &["--handshake-timeout", "1s"]);
    let waited = run.outcomes.get("no_response_client_left").copied().unwrap_or(0);
    assert!(waited > 0 && waited + run.outcomes.get("upgraded").unwrap_or(&0) == 40);
}

#[test]
fn without_descriptors_nothing_is_accepted() {
    // Enough for what a server itself needs, and some connections.
    let patience = ["--hold", "2s", "--handshake-timeout", "1s"];
    let run = direct("hang:0", &["--max-fds", "30"], &patience);
    let upgraded = run.outcomes["upgraded"];
    assert!((5..30).contains(&upgraded), "{:?}", run.outcomes);
    assert!(run.outcomes["no_response_client_left"] > 0, "{:?}", run.outcomes);
}

#[test]
fn a_balancer_without_descriptors_says_so() {
    let run = balanced(&["--max-fds", "40", "--workers", "1"]);
    assert_eq!(run.truth["no-descriptor"], run.seen["http_503"]);
    assert!(run.outcomes["upgraded"] >= 10, "{:?}", run.outcomes);
}
