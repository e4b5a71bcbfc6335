//! Servers that keep a manager for every connection: each bug leaks for the reason that it is named
//! after, the report has the server's own number, and without the bug there is nothing to find.

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use serde_json::Value;

fn states(report: &Value) -> Vec<(&str, &str)> {
    let thresholds = report["thresholds"].as_array().unwrap().iter();
    thresholds.map(|t| (t["name"].as_str().unwrap(), t["state"].as_str().unwrap())).collect()
}

/// With the bug some managers leak, as many as the server's books say; without it none.
fn leaks_and_is_fixed(scenario: &str, leaked: std::ops::RangeInclusive<i64>) {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let leaking = lab::scenario(scenario, &["--time-scale", "0.5"]).exited(99);
    let summary = &leaking.summary;
    let managers = &summary["managers"];
    assert_eq!(summary["equal"], true, "{summary}");
    assert_eq!(managers["found"], managers["leaked"]);
    let found = managers["found"].as_i64().unwrap();
    assert!(leaked.contains(&found), "{summary}");
    // The server's own list says whose cleanup was missed.
    let named = managers["named"].as_array().unwrap().len() as i64;
    assert_eq!((named, &managers["wrongly_named"]), (found.min(5), &Value::Array(vec![])));
    let states = states(&leaking.report);
    assert!(states.contains(&("phantoms.end", "crossed")), "{states:?}");
    assert!(states.contains(&("leaks.managers_growth", "crossed")), "{states:?}");
    // A manager keeps a MiB, which the metrics page shows as well.
    let growth = managers["memory"]["growth_mb"].as_f64().unwrap();
    assert!(growth >= found as f64 * 0.9, "{summary}");

    let fixed = lab::scenario(scenario, &["--fixed", "--time-scale", "0.5"]).exited(0);
    let (summary, report) = (&fixed.summary, &fixed.report);
    assert_eq!(summary["managers"]["found"], 0);
    assert!(states_held(report), "{}", report["thresholds"]);
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
