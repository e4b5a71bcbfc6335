//! Servers that keep a manager for every connection: each bug leaks for the reason that it is named
//! after, the report has the server's own number, and without the bug there is nothing to find.

use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::Place;
use e2e::process::{Running, Signal, binary, finish};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal_within;
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

/// How much of what it could have removed an emergency cleanup removed, as the report has it.
fn effectiveness(run: &lab::Scenario) -> [&Value; 2] {
    let thresholds = run.report["thresholds"].as_array().unwrap();
    let of = "leaks.emergency_effective_percent_final";
    let threshold = thresholds.iter().find(|one| one["name"] == of).expect("a threshold on it");
    [&threshold["measured"], &run.summary["managers"]["emergency_effective_percent"]]
}

/// Nothing leaks, and yet users are refused: at 16 managers of the 20 that they may have nothing is found
/// that could go. Where the emergency cleanup works, it finds all.
#[test]
fn an_emergency_cleanup_is_effective_or_not() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let upgraded = |run: &lab::Scenario| run.report["clients"]["successful"].as_u64().unwrap();
    let sick = lab::scenario("emergency", &[]).exited(99);
    assert_eq!(effectiveness(&sick), [&Value::from(0.0); 2]);
    let beyond: Vec<_> = states(&sick.report).into_iter().filter(|(_, is)| *is != "held").collect();
    assert_eq!(beyond, [("leaks.emergency_effective_percent_final", "crossed")]);
    assert!(upgraded(&sick) < 300, "{}", sick.report["clients"]);

    let healthy = lab::scenario("emergency", &["--fixed"]).exited(0);
    assert_eq!(effectiveness(&healthy), [&Value::from(100.0); 2]);
    assert!(states_held(&healthy.report), "{}", healthy.report["thresholds"]);
    assert_eq!(upgraded(&healthy), 300);
}

/// Clients of one phase, six a second and gone at once.
const PHASE: usize = 60;

/// A server keeps the descriptor of every client that leaves without a close frame, and goes on reporting
/// it. Phases of such clients and of polite ones; what its descriptors are said to grow with, and by how
/// many for each.
fn descriptors_grow_with(phases: &[&str]) -> Vec<(String, f64)> {
    const PATIENCE: Duration = Duration::from_secs(60);

    let (place, scratch) = (Place::host(), Scratch::new("growth"));
    let server =
        lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0", "--fault", "never-close"]);
    let (address, capture) = (server.address(), scratch.join("capture"));
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--interval", "200ms"]);
    record.args(["--health", &format!("http://{address}/health")]);
    record.args(["--metrics", &format!("http://{address}/metrics")]);
    record.args(["--port", &address.port().to_string()]);
    let record = Running::start(&mut record);
    record.wait_stderr("recording");
    let leaks = || -> Value {
        let finished = finish(Command::new(binary("analyzer")).args(["leaks", &capture, "--json"]));
        serde_json::from_str(&finished.stdout).unwrap_or_default()
    };
    let growth = |name: &str| {
        let leaks = leaks();
        let mut followed = leaks["followed"].as_array().into_iter().flatten();
        followed.find(|one| one["name"] == name).map(|one| one["growth"].clone())
    };
    // The baseline comes before the first client.
    wait_equal_within(PATIENCE, "the baseline", &Some(Value::from(0.0)), || growth("phantoms"));
    wait_equal_within(PATIENCE, "the baseline", &true, || growth("descriptors").is_some());
    for end in phases {
        let (url, count) = (format!("ws://{address}/"), PHASE.to_string());
        let mut args = vec!["load", "--url", &url, "--connections", &count, "--ramp", "6/s"];
        args.extend(["--stay", "100ms", "--end", end]);
        let _ = lab::run(&place, &args, PATIENCE);
    }
    let kept = phases.iter().filter(|end| **end == "fin:100%").count() * PHASE;
    wait_equal_within(PATIENCE, "all are reported", &Some(Value::from(kept as f64)), || {
        growth("phantoms")
    });
    assert_eq!(record.stop(Signal::INT).code, Some(130));
    let leaks = leaks();
    let related = leaks["related"].as_array().unwrap().iter();
    let sentences = related.filter_map(|one| one.as_str()?.strip_prefix("descriptors grow by "));
    let parts = sentences.filter_map(|text| text.split(", ").next()?.split_once(" for each "));
    parts.map(|(each, what)| (what.to_owned(), each.parse().unwrap())).collect()
}

/// The first sixty leave politely and leak nothing: growth goes with phantoms, and not with churn.
#[test]
fn what_descriptors_grow_with_is_told() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let found = descriptors_grow_with(&["close-frame:100%", "fin:100%"]);
    assert_eq!(found.len(), 1, "{found:?}");
    let (what, each) = &found[0];
    // A request for a page may be among the first or the last descriptors.
    assert!(what == "phantom" && (0.95..=1.05).contains(each), "{found:?}");
}
