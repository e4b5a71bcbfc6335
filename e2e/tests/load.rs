//! Scenarios of load against a healthy and a sick server: what the clients and the kernel saw, and
//! what the thresholds of the scenario make of it.

use std::fs;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::Place;
use e2e::process::{binary, finish, finish_within};
use e2e::scratch::Scratch;
use serde_json::Value;

/// A run of the scenario: exit code, report, and the directory that it is in.
struct Run {
    code: i32,
    report: Value,
    scratch: Scratch,
}

fn run(scenario: &str, arguments: &[&str]) -> Run {
    let scratch = Scratch::new(scenario);
    let dir = scratch.join("run");
    let mut command = lab::command(&Place::host());
    command.args(["run", scenario, "--json", "-o", &dir]).args(arguments);
    let finished = finish_within(&mut command, Duration::from_secs(240));
    let report = fs::read(scratch.path().join("run/report.json"))
        .unwrap_or_else(|error| panic!("{error}: {finished}"));
    let report = serde_json::from_slice(&report).unwrap();
    Run { code: finished.code.unwrap(), report, scratch }
}

impl Run {
    fn state(&self, name: &str) -> &str {
        let all = self.report["thresholds"].as_array().unwrap();
        let found = all.iter().find(|threshold| threshold["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {all:?}"))["state"].as_str().unwrap()
    }

    fn clients(&self) -> &Value {
        &self.report["clients"]
    }
}

/// 100 clients, all of them served. How fast is a matter of the machine, and is not asserted.
#[test]
fn quick() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let healthy = run("quick", &["--time-scale", "0.1"]);
    let clients = healthy.clients();
    assert_eq!((&clients["attempted"], &clients["successful"]), (&100.into(), &100.into()));
    assert_eq!((&clients["kernel"]["attempted"], &clients["matched"]), (&100.into(), &100.into()));
    assert_eq!(healthy.state("clients.success_rate"), "held");
    let trip = &clients["round_trip"];
    let ms = |name: &str| trip[name].as_f64().unwrap();
    assert!(0.0 < ms("min_ms") && ms("min_ms") <= ms("mean_ms") && ms("mean_ms") <= ms("max_ms"));
    // Each client's start to upgraded, and the stages in between that the kernel saw.
    assert_eq!(clients["stages"].as_array().unwrap().len(), 6, "{clients}");

    let sick = run("quick", &["--time-scale", "0.1", "--fault", "shed-load:20%"]);
    assert_eq!((sick.code, sick.state("clients.success_rate")), (99, "crossed"));
    let clients = sick.clients();
    assert_eq!((&clients["failed"], &clients["kernel"]["failed"]), (&20.into(), &20.into()));
    assert_eq!(clients["errors"][0]["kind"], "http_503");
}

#[test]
fn validate_100() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let healthy = run("validate-100", &["--time-scale", "0.02"]);
    assert_eq!(healthy.code, 0, "{}", healthy.report["thresholds"]);
    let sick = run("validate-100", &["--time-scale", "0.02", "--fault", "double-decrement:30%"]);
    assert_eq!((sick.code, sick.state("end.reported")), (99, "crossed"));
}

/// Clients that come and go: flat on a healthy server; on one that closes only some of its sockets,
/// descriptors grow.
#[test]
fn smoke() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let scale = ["--time-scale", "0.01"];
    let healthy = run("smoke-30m", &scale);
    assert_eq!(healthy.state("leaks.descriptors_per_minute"), "held");
    assert_eq!(healthy.state("leaks.goroutines_per_minute"), "held");

    let sick = run("smoke-30m", &[&scale[..], &["--fault", "never-close:50%"]].concat());
    assert_eq!(sick.code, 99);
    assert_eq!(sick.state("leaks.descriptors_per_minute"), "crossed");
    let leaks = &sick.report["captures"][0]["leaks"];
    let followed = leaks["followed"].as_array().unwrap();
    let descriptors = followed.iter().find(|one| one["name"] == "descriptors").unwrap();
    assert_eq!(descriptors["shape"], "growth");
    // Of ten clients a second four leave without a close frame, and half of these are never closed.
    let rate = descriptors["per_minute"].as_f64().unwrap();
    assert!((90.0..=150.0).contains(&rate), "{rate}");

    // The same from the capture alone, as a table for a pull request.
    let capture = sick.scratch.path().join("run/capture").display().to_string();
    let mut command = std::process::Command::new(binary("analyzer"));
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
    let run = run("custom", &arguments);
    assert_eq!((run.code, &run.clients()["successful"]), (0, &23.into()));
    let mut refused = lab::command(&Place::host());
    refused.args(["run", "quick", "--connections", "5", "-o", "never-made"]);
    let finished = finish(&mut refused);
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("belong to `lab run custom`"), "{finished}");
}
