//! `cargo xtask test`: everything built once, every test run, one summary.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{self, Root, say};
use crate::summary::Summary;
use crate::{build_ebpf, setup};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fail when a test was skipped, whatever the reason (the default where CI=true)
    #[arg(long)]
    require_all: bool,

    /// Passed on to each test binary, e.g. part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    build_ebpf::build()?;
    let root = command::root_access();

    command::run_timed("building the binaries", command::cargo()?.args(["build", "--bins"]))?;
    command::run_timed("building the tests", command::cargo()?.args(["test", "--no-run"]))?;

    let mut tests = command::cargo()?;
    tests.args(["test", "--no-fail-fast", "--", "--show-output"]).args(&options.arguments);
    match root {
        Root::Already => say("running the tests"),
        Root::Sudo => {
            say("running the tests as root, by sudo");
            tests.env(runner_variable(), "sudo --preserve-env=PATH,CI");
        }
        Root::No(why) => {
            say(&format!("running the tests; those that need root are skipped: {why}"));
        }
    }

    // One pipe for both, so that cargo's `Running …` lines stay between the suites' own lines.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = tests
        .stdout(writer.try_clone().context("cannot duplicate a pipe")?)
        .stderr(writer)
        .spawn()
        .context("cannot start cargo")?;
    // The command holds the write ends; the reader ends when the last one is closed.
    drop(tests);

    let mut summary = Summary::default();
    let mut stdout = std::io::stdout();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        if summary.line(&line) {
            writeln!(stdout, "{line}")?;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;

    let summary = summary.finish(!status.success());
    let must_run_all = options.require_all || std::env::var("CI").is_ok_and(|ci| ci == "true");
    let failed = summary.any_failed() || (must_run_all && summary.any_skipped());
    if must_run_all && summary.any_skipped() {
        println!("\nhere every test must run, and some were skipped:");
    }
    println!("\n{}", summary.text());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The variable by which cargo starts test binaries through another program.
fn runner_variable() -> String {
    let target = format!("{}-unknown-linux-{}", std::env::consts::ARCH, LIBC);
    format!("CARGO_TARGET_{}_RUNNER", target.to_uppercase().replace('-', "_"))
}

const LIBC: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
