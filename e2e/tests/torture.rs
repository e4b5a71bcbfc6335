//! The torture run's short form, as `cargo xtask torture` runs it for longer: every way to open and end a
//! connection, with a ring that must hold every record and with one that is too small.

use std::time::Duration;

use e2e::machine::{Need, require};
use e2e::torture::{self, Options};

#[test]
fn counts_hold_under_everything_at_once() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("bpftool")]) else { return };
    let options = Options {
        seed: 5,
        duration: Duration::from_secs(24),
        churn: Duration::from_secs(3),
        steering: true,
    };
    let report = torture::run(&options, |check| eprintln!("{}: {check}", check.at));
    let failed: Vec<String> = report
        .checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| format!("{}: {check}", check.at))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
