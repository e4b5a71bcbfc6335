//! The reference in `docs/reference/` is what the programs say of themselves.

use std::process::Command;
use std::time::Duration;

use e2e::process::finish_within;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_reference_is_not_stale() {
    let mut xtask = Command::new(env!("CARGO"));
    xtask.args(["xtask", "docs", "--check"]).current_dir(ROOT);
    let _ = finish_within(&mut xtask, Duration::from_secs(900)).success("cargo xtask docs --check");
}
