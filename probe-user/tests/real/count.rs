//! Known numbers of connections, counted and listed.

use serde_json::Value;

use crate::common::{Held, json_lines, run};

fn count(args: &[&str]) -> Value {
    let output = run(&[&["count", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0));
    json_lines(&output).remove(0)
}

/// Sums a number over the rows of a role.
fn sum(counts: &Value, role: &str, number: impl Fn(&Value) -> Option<i64>) -> i64 {
    let rows = counts["counts"].as_array().unwrap();
    rows.iter().filter(|row| row["role"] == role).filter_map(number).sum()
}

#[test]
fn connections_from_before_are_counted_at_both_ends() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut held = Held::open(address, 23);
        let port = held.address.port().to_string();
        let counts = count(&["--port", &port]);
        let established =
            |counts: &Value, role: &str| sum(counts, role, |row| row["established"].as_i64());
        assert_eq!(established(&counts, "passive"), 23);
        assert_eq!(established(&counts, "active"), 23);

        let left = held.abandon(7);
        let counts = count(&["--port", &port, "--role", "passive"]);
        assert_eq!(established(&counts, "passive"), 16);
        let close_wait = sum(&counts, "passive", |row| row["states"]["close_wait"].as_i64());
        assert_eq!(close_wait, 7);
        assert_eq!(sum(&counts, "active", |_| Some(1)), 0, "filtered out");
        drop(left);
    }
}

#[test]
fn the_document_has_the_fields_that_scripts_read() {
    let held = Held::open("127.0.0.1:0", 1);
    let counts = count(&["--port", &held.address.port().to_string(), "--role", "passive"]);
    for field in ["schema_version", "at_unix_ns", "backend", "exact", "degraded"] {
        assert!(!counts[field].is_null(), "{field}");
    }
    let row = &counts["counts"][0];
    for field in ["cgroup_id", "container", "netns", "port", "role", "established", "states"] {
        assert!(!row[field].is_null(), "{field} in {row}");
    }
    let container = row["container"].as_object().unwrap();
    let mut fields: Vec<&str> = container.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["id", "name", "runtime"]);
}

#[test]
fn connections_are_listed_with_their_process() {
    let mut held = Held::open("127.0.0.1:0", 5);
    let left = held.abandon(2);
    let port = held.address.port().to_string();
    let pid = std::process::id();
    let list = |args: &[&str]| {
        json_lines(&run(&[&["connections", "--json", "--port", &port], args].concat()))
    };
    let waiting = list(&["--state", "close_wait", "--pid", &pid.to_string()]);
    assert_eq!(waiting.len(), 2);
    for connection in &waiting {
        assert_eq!(connection["role"], "passive");
        assert_eq!(connection["local_port"].to_string(), port);
        assert_eq!(connection["processes"][0]["pid"], pid);
        assert_eq!(connection["unanswered_probes"], 0);
        assert_eq!(connection["accepted"], true);
    }
    assert_eq!(list(&["--state", "established", "--role", "passive"]).len(), 3);
    assert_eq!(list(&["--state", "close_wait", "--pid", "1"]).len(), 0);
    assert_eq!(list(&["--state", "listen"]).len(), 1);
    assert!(list(&[]).iter().all(|connection| connection["state"] != "listen"));
    drop(left);
}

#[test]
fn people_get_a_table() {
    let held = Held::open("127.0.0.1:0", 997);
    let port = held.address.port().to_string();
    let output = run(&["count", "--port", &port, "--role", "passive"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["CONTAINER", "PORT", "ROLE", "ESTABLISHED", "ACCEPTED", "OTHER", "STATES"]
    );
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[1..4], [port.as_str(), "passive", "997"]);
    assert!(text.lines().take(2).all(|line| line.chars().count() <= 100), "{text}");
}
