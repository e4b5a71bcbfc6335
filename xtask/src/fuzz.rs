//! `cargo xtask fuzz`: every parser of outside input under libFuzzer, for some time each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{self, say};
use crate::paths;

/// A workspace of its own, below the checkout's root.
const DIRECTORY: &str = "fuzz/targets";

/// Each target, and where its first inputs lie below the checkout's root.
const TARGETS: [(&str, &[&str]); 9] = [
    ("archive", &["fuzz/corpus/archive"]),
    ("capture_meta", &["fuzz/corpus/capture_meta"]),
    ("capture_table", &["fuzz/corpus/capture_table"]),
    ("cgroup", &["fuzz/corpus/cgroup"]),
    ("clients", &["fuzz/corpus/clients", "analyzer/tests/clients"]),
    ("http", &["fuzz/corpus/http"]),
    ("logs", &["fuzz/corpus/logs", "fuzz/corpus/status_page"]),
    ("status_page", &["fuzz/corpus/status_page"]),
    ("thresholds", &["fuzz/corpus/thresholds", "analyzer/src/threshold/preset"]),
];

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask fuzz
  cargo xtask fuzz --seconds 600 http cgroup

Needs cargo-fuzz (cargo install cargo-fuzz --locked) and a C++ compiler; the pinned compiler does, as no
sanitizer is used. What is found is in <target dir>/fuzz; an input that fails belongs in fuzz/corpus, which
the tests replay. Exits 1 if one failed.")]
pub(crate) struct Options {
    /// Only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,

    /// How long for each
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if command::output("cargo", &["fuzz", "--version"]).is_none() {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz --locked");
    }
    let scratch = paths::target_dir()?.join("fuzz");
    command::run_timed("building the targets", &mut cargo_fuzz("build", &scratch)?)?;
    let is_wanted =
        |name: &str| options.targets.is_empty() || options.targets.iter().any(|one| one == name);
    let mut held = true;
    for (name, seeds) in TARGETS.iter().filter(|(name, _)| is_wanted(name)) {
        held &= fuzz(name, seeds, options.seconds, &scratch)?;
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo_fuzz(verb: &str, scratch: &Path) -> Result<Command> {
    let mut command = command::cargo()?;
    command.args(["fuzz", verb, "--fuzz-dir", DIRECTORY, "--sanitizer", "none", "--target-dir"]);
    command.arg(scratch);
    Ok(command)
}

/// False if an input made the target fail.
fn fuzz(name: &str, seeds: &[&str], seconds: u32, scratch: &Path) -> Result<bool> {
    let place = |what: &str| -> Result<PathBuf> {
        let path = scratch.join(what).join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    };
    let (found, failed) = (place("found")?, place("failed")?);
    let log = scratch.join(format!("{name}.log"));
    let status = command::status(
        cargo_fuzz("run", scratch)?
            .arg(name)
            // New inputs go to the first.
            .arg(found)
            .args(seeds)
            .args(["--", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", failed.display()))
            .stderr(File::create(&log)?),
    )?;
    let said = fs::read_to_string(&log)?;
    if status.success() {
        let number = |what: &str| said.lines().find_map(|line| line.strip_prefix(what));
        let runs = number("stat::number_of_executed_units:").unwrap_or("?").trim();
        println!("{name}: {runs} inputs in {seconds} s");
    } else {
        let panic = said.lines().skip_while(|line| !line.contains("panicked at")).take(2);
        let panic = panic.collect::<Vec<_>>().join(" ");
        println!("{name}: failed: {panic}");
        say(&format!("the input is in {}, more in {}", failed.display(), log.display()));
    }
    Ok(status.success())
}
