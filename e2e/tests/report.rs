//! The report in a real browser: plots are hovered over and zoomed, tables sort, and without JavaScript
//! the text and the tables are the same.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::process::{binary, finish, finish_within};
use serde_json::{Value, json};

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/report.mjs");

/// A section's command, run as it stands, has every number of the section in what it prints.
fn prints_every_number(section: &Value) {
    let command = section["command"].as_str().unwrap();
    let beside = binary("analyzer");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    shell.env("PATH", format!("{}:{path}", beside.parent().unwrap().display()));
    let finished = finish(&mut shell);
    assert!(matches!(finished.code, Some(0 | 4 | 99)), "{command}: {finished}");
    let bare = |word: &str| word.trim_matches(|c: char| "(),;:%".contains(c)).to_owned();
    let printed: HashSet<String> = finished.stdout.split([' ', '\n', '=']).map(bare).collect();
    let numbers = section["numbers"].as_array().unwrap();
    assert!(!numbers.is_empty(), "{command}");
    for number in numbers {
        let number = bare(number.as_str().unwrap());
        assert!(printed.contains(&number), "{command}: no {number}: {finished}");
    }
}

#[test]
fn a_report_is_read() {
    let needs = [Need::Bpf, Need::Program("chromium"), Need::Program("node")];
    let Some(_machine) = require_beside_others(&needs) else { return };
    let run = lab::scenario("app-leak-rst", &["--time-scale", "0.5"]).exited(99);
    let (page, screenshot) = (run.path("report.html"), run.path("report.png"));
    let mut browser = Command::new("node");
    browser.arg(BROWSER).arg(format!("file://{}", page.display())).arg(&screenshot);
    let finished = finish_within(&mut browser, Duration::from_secs(120));
    let seen: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"));
    assert_eq!(seen["errors"], json!([]), "{finished}");
    let text = seen["text"].as_str().unwrap();
    assert!(text.contains("23 phantoms: application leak"), "{text}");

    let tip = seen["tip"].as_str().unwrap();
    assert!(tip.contains(" UTC") && tip.contains("reported"), "{tip}");
    assert_eq!(seen["whole"]["view"], "0 0 100 100");
    let view: Vec<f64> = seen["zoomed"]["view"]
        .as_str()
        .unwrap()
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    assert!((view[0] - 25.0).abs() < 1.0 && (view[2] - 50.0).abs() < 1.0, "{view:?}");
    assert_ne!(seen["zoomed"]["labels"], seen["whole"]["labels"]);
    assert_eq!(seen["back"], seen["whole"]);
    let sorted = seen["sorted"].as_array().unwrap();
    let reversed: Vec<Value> = sorted[1].as_array().unwrap().iter().rev().cloned().collect();
    assert_eq!(sorted[2], Value::from(reversed));

    assert_eq!(seen["beyond"], json!([]), "{finished}");
    assert_eq!(seen["cut"], json!([]), "{finished}");
    let again = seen["again"].as_array().unwrap();
    let commands: Vec<&str> = again.iter().map(|one| one["command"].as_str().unwrap()).collect();
    for part in ["phantoms", "handshakes", "leaks", "connections", "clients"] {
        let start = format!("analyzer {part} ");
        assert!(commands.iter().any(|command| command.starts_with(&start)), "{commands:?}");
    }
    for one in again {
        prints_every_number(one);
    }

    // A screenshot that shows nothing is a few kilobytes.
    let image = std::fs::read(&screenshot).unwrap();
    assert!(image.starts_with(b"\x89PNG") && image.len() > 20_000, "{} bytes", image.len());

    let plain = seen["plain"].as_str().unwrap();
    assert_eq!(seen["buttons"], 0);
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace().filter(|word| *word != "show").map(str::to_owned).collect()
    };
    assert_eq!(words(plain), words(text));
}
