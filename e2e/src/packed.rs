//! A capture packed by `analyzer export`: small, and the same to everybody who asks it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{binary, finish};

/// On disk, of a leg with every stage.
const MOST_BYTES_A_LEG: u64 = 64;

/// Packs the capture into a directory, and asks both the same questions.
///
/// # Panics
/// If the packed one is too large, or differs in any row or answer.
#[track_caller]
pub fn check(capture: &str, packed: &str) {
    analyzer(&["export", capture, "--parquet", packed]);
    let rows = analyzer(&["connections", capture, "--json"]);
    // Not by assert_eq, which would print megabytes.
    assert!(analyzer(&["connections", packed, "--json"]) == rows, "other rows");
    assert_eq!(handshakes(packed), handshakes(capture));
    let legs = rows.lines().count() as u64;
    let bytes = size(&Path::new(packed).join("connections"));
    assert!(bytes <= legs * MOST_BYTES_A_LEG, "{bytes} bytes for {legs} legs");
}

#[track_caller]
fn analyzer(arguments: &[&str]) -> String {
    finish(Command::new(binary("analyzer")).args(arguments)).success("analyzer")
}

/// But for the name, which is the path.
#[track_caller]
fn handshakes(capture: &str) -> Value {
    let text = analyzer(&["handshakes", capture, "--json"]);
    let mut report: Value = serde_json::from_str(&text).expect("JSON");
    report["capture"] = Value::Null;
    report
}

/// Of every file below a directory.
fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        bytes += if path.is_dir() { size(&path) } else { path.metadata().expect("a file").len() };
    }
    bytes
}
