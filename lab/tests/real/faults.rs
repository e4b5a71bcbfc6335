//! Each fault against real clients: what the server then believes, what the kernel has, and that
//! the truth names exactly the connections that were hit.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Server, lines, load, ports};

/// What is left after the clients are gone.
struct Left {
    reported: i64,
    /// Client ports in the server's table.
    table: BTreeSet<u64>,
    /// Client ports in the truth file.
    truth: BTreeSet<u64>,
    /// Client ports by how the client ended: `rst`, `fin`, `silent`.
    hit_by_client: BTreeSet<u64>,
    close_wait: usize,
    held: String,
}

fn run(fault: &str, serve: &[&str], end: &str, expected: i64) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let results = dir.path().join("results.jsonl");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--fault", fault, "--truth"];
    let server = Server::start(&[&flags[..], &[truth.to_str().unwrap()], serve].concat());
    let ends: &[&str] = &["--end", end, "--end-at", "200ms"];
    let out = results.to_str().unwrap();
    let shape = ["--connections", "97", "--ramp", "400/s", "--hold", "2500ms", "-o", out];
    let summary = load(server.address(), &[&shape, ends].concat());
    assert_eq!(summary["upgraded"], 97);
    settle(&server, expected);
    let how = end.split(':').next().unwrap();
    Left {
        reported: server.reported(),
        table: table(&server),
        truth: ports(&lines(&truth), "remote_port", |_| true),
        hit_by_client: ports(&lines(&results), "local_port", |line| line["end"] == how),
        close_wait: close_wait(server.address()),
        held: metric(&server, "lab_held_sockets"),
    }
}

/// The server notices the last ends a moment after the client is gone.
fn settle(server: &Server, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.reported() != expected {
        let now = server.reported();
        assert!(Instant::now() < deadline, "still {now} reported, {expected} expected");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn table(server: &Server) -> BTreeSet<u64> {
    let body = server.json("/connections");
    let peers = body["connections"].as_array().unwrap().iter();
    peers.map(|entry| port(entry["peer"].as_str().unwrap())).collect()
}

fn port(address: &str) -> u64 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

fn metric(server: &Server, name: &str) -> String {
    let text = crate::common::get(server.address(), "/metrics");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    line.split(' ').next_back().unwrap().to_owned()
}

/// Sockets of the server's port in CLOSE_WAIT (08), as the kernel lists them.
fn close_wait(address: &str) -> usize {
    let local = format!(":{:04X}", port(address));
    let text = std::fs::read_to_string(Path::new("/proc/net/tcp")).unwrap();
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f.len() > 3 && f[1].ends_with(&local) && f[3] == "08").count()
}

#[test]
fn app_leak_on_rst() {
    let left = run("app-leak-on-rst", &[], "rst:13", 13);
    assert_eq!(left.truth.len(), 13);
    assert_eq!(left.truth, left.table);
    assert_eq!(left.truth, left.hit_by_client);
}

#[test]
fn app_leak_on_no_close_frame() {
    let left = run("app-leak-on-no-close-frame", &[], "fin:13", 13);
    assert_eq!(left.truth.len(), 13);
    assert_eq!(left.truth, left.table);
    assert_eq!(left.truth, left.hit_by_client);
    assert_eq!(left.close_wait, 0);
}

#[test]
fn app_leak_on_timeout() {
    let ping = ["--ping-interval", "300ms", "--ping-timeout", "500ms"];
    let left = run("app-leak-on-timeout", &ping, "silent:13", 13);
    assert_eq!(left.truth.len(), 13);
    assert_eq!(left.truth, left.table);
    assert_eq!(left.truth, left.hit_by_client);
}

#[test]
fn double_decrement_goes_below_zero() {
    let left = run("double-decrement:13", &[], "rst:20", -13);
    assert_eq!(left.reported, -13);
    assert!(left.table.is_empty());
    assert_eq!(left.truth.len(), 13);
    assert!(left.truth.is_subset(&left.hit_by_client));
}

#[test]
fn never_close_after_fin_is_close_wait() {
    let left = run("never-close", &[], "fin:13", 13);
    assert_eq!((left.close_wait, left.held.as_str()), (13, "13"));
    assert_eq!(left.truth, left.table);
    assert_eq!(left.truth, left.hit_by_client);
}

#[test]
fn never_close_after_rst_is_a_held_descriptor_on_no_connection() {
    let left = run("never-close", &[], "rst:13", 13);
    assert_eq!((left.close_wait, left.held.as_str()), (0, "13"));
    assert_eq!(left.truth, left.hit_by_client);
}

#[test]
fn reverse_phantoms_are_served_and_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let fault = ["--fault", "reverse-phantom:13", "--truth", truth.to_str().unwrap()];
    let server = Server::start(&[&["serve", "--listen", "127.0.0.1:0"][..], &fault].concat());
    let address = server.address().to_owned();
    let clients = std::thread::spawn(move || {
        load(&address, &["--connections", "97", "--ramp", "500/s", "--hold", "2s"])
    });
    settle(&server, 84);
    let table = table(&server);
    assert_eq!(table.len(), 84);
    let hits = ports(&lines(&truth), "remote_port", |_| true);
    assert_eq!(hits.len(), 13);
    assert!(hits.is_disjoint(&table));
    assert_eq!(clients.join().unwrap()["upgraded"], 97);
    settle(&server, 0);
}

#[test]
fn without_a_fault_nothing_stays_however_connections_end() {
    let server = Server::start(&["serve", "--listen", "[::1]:0"]);
    let ends = ["--end", "rst:20%", "--end", "fin:19", "--end-at", "100ms"];
    let shape = ["--connections", "200", "--ramp", "200/s", "--hold", "500ms"];
    let summary = load(server.address(), &[&shape[..], &ends].concat());
    let ended = &summary["ends"];
    assert_eq!(ended["client_rst"], 40);
    assert_eq!(ended["client_fin"], 19);
    assert_eq!(ended["client_close_frame"], 141);
    settle(&server, 0);
    assert!(table(&server).is_empty());
    let fds = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    assert!(fds < 25, "{fds} descriptors are open");
}
