//! The programs of a run: a server, `probe record`, `analyzer report`, and what a run comes to.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::directory::MARK;
use crate::children::{self, interrupt, line_with, spawn};
use crate::error::{LabError, file_error};

/// How long a program may take to start on a busy machine.
pub(super) const START: Duration = Duration::from_secs(60);

/// Runs to the end, or until a signal; what is dropped halfway kills its processes.
pub(super) async fn until_stopped(
    run: impl Future<Output = anyhow::Result<()>>,
    stopped: impl Future<Output = i32>,
) -> anyhow::Result<()> {
    tokio::select! {
        result = run => result,
        signal = stopped => Err(LabError::Signal(signal).into()),
    }
}

/// `lab serve` or `lab balance` with `--json`, and the line that says where it listens, or will. Its
/// errors are in `serve.log` of `dir`.
pub(super) async fn serve(command: &mut Command, dir: &Path) -> anyhow::Result<(Child, String)> {
    let mut server =
        spawn(command.stdout(Stdio::piped()).stderr(children::log(dir, "serve.log")?))?;
    let bound = |line: &str| line.contains("listening") || line.contains("reserved");
    let line = match server.stdout.take() {
        Some(out) => line_with(out, START, false, bound).await,
        None => None,
    };
    match line {
        Some(line) => Ok((server, line)),
        None => {
            let status = interrupt("the server", &mut server).await?;
            Err(children::unexpected("the server (see serve.log)", status))
        }
    }
}

/// `probe` with these arguments, once its standard error has a line with `ready`.
pub(super) async fn probe(
    command: &mut Command,
    name: &str,
    ready: &str,
    show: bool,
) -> anyhow::Result<Child> {
    let mut probe = spawn(command.stderr(Stdio::piped()))?;
    let attached = match probe.stderr.take() {
        Some(err) => line_with(err, START, show, |line| line.contains(ready)).await,
        None => None,
    };
    match attached {
        Some(_) => Ok(probe),
        None => Err(children::unexpected(name, interrupt(name, &mut probe).await?)),
    }
}

/// `probe record`, attached: from here on nothing is missed.
pub(super) async fn record(command: &mut Command) -> anyhow::Result<Child> {
    probe(command.stdout(Stdio::null()), RECORD, "recording", true).await
}

const RECORD: &str = "probe record";

/// Ends the recording, once all of it is on disk.
pub(super) async fn end_recording(record: &mut Child) -> anyhow::Result<()> {
    let status = interrupt(RECORD, record).await?;
    match children::code(status) {
        0 | 130 => Ok(()),
        _ => Err(children::unexpected(RECORD, status)),
    }
}

/// `analyzer report`; its exit code, if it came to a judgement.
pub(super) async fn report(command: &mut Command) -> anyhow::Result<i32> {
    let status = spawn(command)?.wait().await?;
    match children::code(status) {
        code @ (0 | 4 | 99) => Ok(code),
        _ => Err(children::unexpected("analyzer report", status)),
    }
}

/// The port of an address, as text.
pub(super) fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or(address)
}

/// Writes the run's mark with what it came to, and prints that: for machines, or for people.
pub(super) fn tell(output: &Path, json: bool, summary: &Value, text: &str) -> anyhow::Result<()> {
    let mark = output.join(MARK);
    std::fs::write(&mark, format!("{summary:#}\n"))
        .map_err(|error| file_error(&mark, "write", &error))?;
    if json {
        println!("{summary}");
        return Ok(());
    }
    println!("{text}");
    let report = output.join("report.html");
    if report.exists() {
        println!("report: {}", report.display());
    }
    Ok(())
}

/// Not a threshold: either the tools or the lab are wrong.
pub(super) fn unequal() -> anyhow::Error {
    anyhow::anyhow!("what was found is not what was done")
}
