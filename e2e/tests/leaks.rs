//! Servers that keep a manager for every connection: each bug leaks for the reason that it is named
//! after, the report has the server's own number, and without the bug there is nothing to find.

use std::fs;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::Place;
use e2e::process::finish_within;
use e2e::scratch::Scratch;
use serde_json::Value;

/// Runs the scenario; its summary and the analyzer's report.
fn run(scenario: &str, arguments: &[&str], expected_code: i32) -> (Value, Value) {
    let scratch = Scratch::new(scenario);
    let dir = scratch.join("run");
    let mut command = lab::command(&Place::host());
    command.args(["run", scenario, "--json", "-o", &dir]).args(arguments);
    let finished = finish_within(&mut command, Duration::from_secs(180));
    assert_eq!(finished.code, Some(expected_code), "{scenario}: {finished}");
    let summary = serde_json::from_str(&finished.stdout).unwrap();
    let report = fs::read(scratch.path().join("run/report.json")).unwrap();
    (summary, serde_json::from_slice(&report).unwrap())
}

fn states(report: &Value) -> Vec<(&str, &str)> {
    let thresholds = report["thresholds"].as_array().unwrap().iter();
    thresholds.map(|t| (t["name"].as_str().unwrap(), t["state"].as_str().unwrap())).collect()
}

/// With the bug some managers leak, as many as the server's books say; without it none.
fn leaks_and_is_fixed(scenario: &str, leaked: std::ops::RangeInclusive<i64>) {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let (summary, report) = run(scenario, &["--time-scale", "0.5"], 99);
    let managers = &summary["managers"];
    assert_eq!(summary["equal"], true, "{summary}");
    assert_eq!(managers["found"], managers["leaked"]);
    let found = managers["found"].as_i64().unwrap();
    assert!(leaked.contains(&found), "{summary}");
    // The server's own list says whose cleanup was missed.
    let named = managers["named"].as_array().unwrap().len() as i64;
    assert_eq!((named, &managers["wrongly_named"]), (found.min(5), &Value::Array(vec![])));
    let states = states(&report);
    assert!(states.contains(&("phantoms.end", "crossed")), "{states:?}");
    assert!(states.contains(&("leaks.managers_growth", "crossed")), "{states:?}");
    // A manager keeps a MiB, which the metrics page shows as well.
    let growth = managers["memory"]["growth_mb"].as_f64().unwrap();
    assert!(growth >= found as f64 * 0.9, "{summary}");

    let (summary, report) = run(scenario, &["--fixed", "--time-scale", "0.5"], 0);
    assert_eq!(summary["managers"]["found"], 0);
    assert!(states_held(&report), "{}", report["thresholds"]);
    assert!(summary["managers"]["cleanup_ms_max"].as_f64().unwrap() < 500.0);
}

fn states_held(report: &Value) -> bool {
    states(report).iter().all(|(_, state)| *state == "held")
}

/// On a busy machine a tab may open after another's manager is there, and share it.
#[test]
fn tabs() {
    leaks_and_is_fixed("tabs", 1..=7);
}

#[test]
fn cold_start() {
    leaks_and_is_fixed("cold-start", 20..=20);
}

/// All but the last; and those whose cleanup ended first on a machine that is slow to connect.
#[test]
fn reconnects() {
    leaks_and_is_fixed("reconnects", 1..=14);
}

#[test]
fn key_mismatch() {
    leaks_and_is_fixed("key-mismatch", 12..=12);
}

#[test]
fn slow_cleanup() {
    leaks_and_is_fixed("slow-cleanup", 20..=20);
}

#[test]
fn all_of_them_at_once() {
    leaks_and_is_fixed("all", 54..=73);
}
