//! A made-up capture with known answers: the same seed makes the same bytes, and the analyzer finds
//! the answers. Files alone: the machine may be at work on other tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::packed;
use e2e::process::{Finished, binary, finish};
use e2e::scratch::Scratch;
use serde_json::Value;

const SIZE: [&str; 10] = [
    "--connections",
    "70k",
    "--clients",
    "3k",
    "--health",
    "90",
    "--phantoms",
    "23",
    "--open",
    "97",
];

fn generate(dir: &str, seed: &str) {
    let mut command = Command::new(binary("lab"));
    command.args(["generate", "--seed", seed, "-o", dir]).args(SIZE);
    let finished = finish(&mut command);
    assert_eq!(finished.code, Some(0), "{finished}");
}

fn analyzer(arguments: &[&str]) -> Finished {
    finish(Command::new(binary("analyzer")).args(arguments))
}

fn read_json(path: &str) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap()
}

/// Every file below a directory, by its path in it.
fn bytes(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(
                bytes(&path).into_iter().map(|(below, all)| (format!("{name}/{below}"), all)),
            );
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let scratch = Scratch::new("same-bytes");
    let [one, again, other] = ["one", "again", "other"].map(|name| scratch.join(name));
    generate(&one, "7");
    generate(&again, "7");
    generate(&other, "8");
    let [one, again, other] = [one, again, other].map(|dir| bytes(Path::new(&dir)));
    let names: Vec<&String> = one.keys().collect();
    assert_eq!(names, again.keys().collect::<Vec<_>>());
    assert_eq!(one.len(), 13, "{names:?}");
    for (name, bytes) in &one {
        assert!(again[name] == *bytes, "{name} differs");
    }
    assert_ne!(one["capture/connections.arrows"], other["capture/connections.arrows"]);
}

#[test]
fn the_analyzer_finds_the_answers() {
    let scratch = Scratch::new("answers");
    let dir = scratch.join("made");
    generate(&dir, "7");
    let answers = read_json(&format!("{dir}/answers.json"));
    assert_eq!((&answers["attempts"], &answers["phantoms"]), (&70_000.into(), &23.into()));

    let (capture, clients) = (format!("{dir}/capture"), format!("{dir}/clients.jsonl"));
    let report = scratch.join("report");
    let finished = analyzer(&["report", &capture, "--client", &clients, "-o", &report]);
    assert_eq!(finished.code, Some(99), "{finished}");
    let report = read_json(&format!("{report}/report.json"));

    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["basis"], "connections", "{server}");
    assert_eq!(server["phantoms"]["peak"], answers["phantoms"]);
    assert_eq!(server["phantoms"]["at_end"], answers["phantoms"]);
    assert_eq!(server["reverse_phantoms"]["peak"], 0);
    assert_eq!(server["left_out_health_polls"], answers["plain_http"]);
    assert_eq!(server["last"]["kernel_high"], answers["established_at_end"]);
    let leak = &server["findings"][0];
    assert_eq!((&leak["kind"], &leak["count"]), (&"application_leak".into(), &answers["phantoms"]));

    let handshakes = &report["captures"][0]["handshakes"];
    for name in ["attempts", "failed", "plain_http"] {
        assert_eq!(handshakes[name], answers[name], "{name}");
    }
    let service = &handshakes["services"][0];
    let outcomes: BTreeMap<&str, &Value> = service["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["outcome"].as_str().unwrap(), &found["count"]))
        .collect();
    let expected: BTreeMap<&str, &Value> = answers["outcomes"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(outcome, count)| (outcome.as_str(), count))
        .collect();
    assert_eq!(outcomes, expected);
    let steps = answers["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    for step in steps {
        let found = service["steps"].as_array().unwrap();
        let found = found.iter().find(|f| (&f["from"], &f["to"]) == (&step["from"], &step["to"]));
        let found = found.unwrap_or_else(|| panic!("no {step} in {service}"));
        assert_eq!(found["count"], step["count"]);
        for quantile in ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
            assert_eq!(found[quantile].as_f64(), step[quantile].as_f64(), "{quantile} of {step}");
        }
    }

    let seen = &report["clients"];
    for name in ["matched", "unmatched", "without_address"] {
        assert_eq!(seen[name], answers["clients"][name], "{name}");
    }
    let ahead_ns = answers["clients_clock_ahead_ns"].as_f64().unwrap();
    let found_ns = seen["clock"]["offset_ns"].as_f64().unwrap();
    let uncertainty_ns = seen["clock"]["uncertainty_ns"].as_f64().unwrap();
    assert!((found_ns - ahead_ns).abs() <= uncertainty_ns, "{}", seen["clock"]);
    assert!(uncertainty_ns < 5e6, "{}", seen["clock"]);
}

/// A leg with every stage, packed, and nothing of it lost.
#[test]
fn a_packed_capture_takes_64_bytes_a_leg_and_says_the_same() {
    let scratch = Scratch::new("packed");
    let made = scratch.join("made");
    generate(&made, "7");
    packed::check(&format!("{made}/capture"), &scratch.join("packed"));
}

/// Two hosts' captures as a fleet: laid out for other engines, and read back to the same report.
#[test]
fn a_fleet_reports_what_its_captures_do() {
    let scratch = Scratch::new("fleet");
    let fleet = scratch.join("fleet");
    let captures = ["web-1", "web-2"].map(|host| {
        let dir = scratch.join(host);
        let seed = if host == "web-1" { "1" } else { "2" };
        let mut command = Command::new(binary("lab"));
        command.args(["generate", "--connections", "5k", "--health", "60", "--host", host]);
        let finished = finish(command.args(["--seed", seed, "-o", &dir]));
        assert_eq!(finished.code, Some(0), "{finished}");
        format!("{dir}/capture")
    });
    let [one, two] = &captures;
    let exported = analyzer(&["export", one, two, "--parquet", &fleet]);
    assert_eq!(exported.code, Some(0), "{exported}");
    for (table, host) in [("connections", "web-1"), ("health", "web-2"), ("samples", "web-2")] {
        let day = format!("{fleet}/{table}/host={host}/date=2023-11-14");
        let seed = if host == "web-1" { 1 } else { 2 };
        let file = format!("{day}/1700000000-generated{seed}.parquet");
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(bytes.starts_with(b"PAR1"), "{file}");
    }

    let report = |name: &str, inputs: &[&str]| {
        let output = scratch.join(name);
        let finished = analyzer(&[&["report", "-o", &output], inputs].concat());
        assert_eq!(finished.code, Some(99), "{finished}");
        let report = read_json(&format!("{output}/report.json"));
        let captures = report["captures"].as_array().unwrap().clone();
        assert_eq!(captures.len(), 2);
        for capture in &captures {
            assert_eq!(capture["servers"][0]["phantoms"]["at_end"], 23);
        }
        // What alone may differ: where they were read from.
        let nameless = captures.iter().map(|capture| {
            let name = capture["name"].as_str().unwrap();
            capture.to_string().replace(name, "capture")
        });
        nameless.collect::<Vec<String>>()
    };
    assert!(report("of-captures", &[one, two]) == report("of-fleet", &[&fleet]));

    // What lies there already and is none of ours is named.
    let stray = format!("{fleet}/connections/host=web-1/date=2023-11-14/stray.parquet");
    fs::write(&stray, b"PAR1").unwrap();
    let finished = analyzer(&["report", &fleet]);
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("stray.parquet"), "{finished}");
}
