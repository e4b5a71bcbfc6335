//! Which place a setting is taken from, and what is said of one that is no use.

use std::fs;

use serde_json::{Value, json};

use crate::common::{assert_says, json_lines, probe};

/// The value of a command's key and where it is from.
fn show(file: &str, environment: &[(&str, &str)], command: &str, key: &str) -> (Value, Value) {
    let mut shown = probe(&["--config", file, "config", "show", command, "--json"]);
    let output = shown.envs(environment.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let settings = json_lines(&output).remove(0)["settings"].take();
    let setting = settings.as_array().unwrap().iter().find(|s| s["key"] == key);
    let setting = setting.unwrap_or_else(|| panic!("no {key} in {settings}"));
    (setting["value"].clone(), setting["from"].clone())
}

#[test]
fn the_environment_goes_before_the_file_and_the_command_line_before_both() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("probe.toml");
    let file = path.to_str().unwrap();
    fs::write(&path, "state = [\"open\"]\n").unwrap();
    // A faulty file is a fault of every command that reads it.
    for args in [&["--config", file, "count"][..], &["config", "check", file]] {
        assert_says(
            &probe(args).output().unwrap(),
            2,
            &[&format!("{file}:1: state:"), "possible values: established", "--config /dev/null"],
        );
    }

    fs::write(&path, "port = 3005\n[stop]\npurge = false\n").unwrap();
    let at = |line: u32| json!(format!("{file}:{line}"));
    assert_eq!(show(file, &[], "count", "port"), (json!("3005"), at(1)));
    assert_eq!(show(file, &[], "stop", "purge"), (json!("false"), at(3)));
    let environment = [("PROBE_PORT", "80"), ("PROBE_ROLE", "")];
    assert_eq!(show(file, &environment, "count", "port"), (json!("80"), json!("PROBE_PORT")));
    assert_eq!(show(file, &environment, "count", "role"), (Value::Null, json!("default")));
    assert_eq!(show(file, &[], "serve", "interval"), (json!("1s"), json!("default")));

    // Typed, it is neither read from the environment nor checked there.
    let doctor = |port| probe(&["count", "--port", port]).env("PROBE_PORT", "none").output();
    assert_says(&doctor("0").unwrap(), 2, &["invalid value '0' for '--port"]);
    let unset = probe(&["count"]).env("PROBE_PORT", "none").output().unwrap();
    assert_says(&unset, 2, &["environment variable PROBE_PORT: invalid value 'none'"]);
}

#[test]
fn what_a_command_needs_may_stand_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("probe.toml");
    let file = path.to_str().unwrap();
    let busy = directory.path().to_str().unwrap();
    fs::write(&path, format!("[record]\noutput = {busy:?}\nmetric = [\"a\", \"b\"]\n")).unwrap();
    // --metric wants --metrics, so this is what clap says of the whole.
    let record = probe(&["--config", file, "record"]).output().unwrap();
    assert_says(&record, 2, &["--metrics <URL>"]);
    let named = probe(&["--config", "/nonexistent.toml", "count"]).output().unwrap();
    assert_says(&named, 2, &["cannot read the configuration /nonexistent.toml"]);
}
