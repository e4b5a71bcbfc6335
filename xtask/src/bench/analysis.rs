//! What a report on the largest runs takes, beside the same questions asked of DuckDB and pandas on the
//! same files. Everybody's answers must be those that `lab generate` wrote down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::row::{Goal, Row};
use super::statistics::Median;
use super::{Context, cpu, process};

const MIB: f64 = 1024.0 * 1024.0;
/// Pairs of a report and its peer; a pair of the large ones takes a minute.
const PAIRS: usize = 5;
const DUCKDB: &str = include_str!("analysis/ask_duckdb.py");
const FLEET: &str = include_str!("analysis/ask_fleet.py");
const PANDAS: &str = include_str!("analysis/ask_pandas.py");

const PANDAS_LIMIT: &str = "The script is a good one: it works on whole columns, in numpy and Arrow, and answers \
    four of the report's questions. More than half of the report's processor time goes into reading 37 columns of \
    every leg, which it does on two threads.";

/// One run of a program.
#[derive(Clone, Copy, Debug)]
struct Run {
    seconds: f64,
    /// Of all its threads, in and for it.
    worked_s: f64,
    peak_mib: f64,
}

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let large = generate(context, "10M", "1M")?;
    let middle = generate(context, "1M", "100k")?;
    let small = generate(context, "1000", "100")?;
    let python = python();
    let mut rows = Vec::new();

    let mut reports = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..PAIRS {
        reports.push(report(context, &large)?);
        if let Ok(python) = &python {
            peers.push(peer(context, python, "ask_duckdb.py", DUCKDB, &large)?);
        }
    }
    let what = "report on 10 M connections / DuckDB";
    match &python {
        Ok(_) => {
            rows.push(ratio(&format!("{what}, time"), 1.0, &reports, &peers, |run| run.seconds)?);
            rows.push(ratio(&format!("{what}, memory"), 1.0, &reports, &peers, |r| r.peak_mib)?);
        }
        Err(why) => {
            rows.push(Row::absent(&format!("{what}, time"), Goal::AtMost(1.0), why));
            rows.push(Row::absent(&format!("{what}, memory"), Goal::AtMost(1.0), why));
        }
    }
    rows.push(row("its peak memory", 2048.0, "MiB", &reports, |run| run.peak_mib)?);

    let middles = repeat(|| report(context, &middle))?;
    rows.push(ratio("time on 10 M / on 1 M", 11.0, &reports, &middles, |run| run.seconds)?);
    let what = "report on 1 M connections / pandas, time";
    match &python {
        Ok(python) => {
            let pandas = repeat(|| peer(context, python, "ask_pandas.py", PANDAS, &middle))?;
            let row = ratio(what, 0.1, &middles, &pandas, |run| run.seconds)?;
            let [ours, theirs] = [&middles, &pandas].map(|runs| median_of(runs, |r| r.worked_s));
            let sides = format!("{} s, processor time {ours:.1} / {theirs:.1} s", row.detail);
            rows.push(row.detail(sides).limit(PANDAS_LIMIT));
        }
        Err(why) => rows.push(Row::absent(what, Goal::AtMost(0.1), why)),
    }
    rows.push(pack(context, &middle)?);
    if let Ok(python) = &python {
        check_fleet(context, python, &middle)?;
    }
    let smalls = repeat(|| report(context, &small))?;
    rows.push(row("report on 1,000 connections, start to HTML", 300.0, "ms", &smalls, |run| {
        run.seconds * 1e3
    })?);
    let binary = context.binary("analyzer");
    let bytes = fs::metadata(&binary)
        .with_context(|| format!("cannot look at {}", binary.display()))?
        .len();
    rows.push(Row::new(
        "analyzer binary, release, stripped",
        Goal::AtMost(60.0),
        "MiB",
        bytes as f64 / MIB,
    ));
    Ok(rows)
}

fn repeat(mut run: impl FnMut() -> Result<Run>) -> Result<Vec<Run>> {
    (0..PAIRS).map(|_| run()).collect()
}

fn row(what: &str, most: f64, unit: &str, runs: &[Run], of: impl Fn(&Run) -> f64) -> Result<Row> {
    let median =
        Median::of(&runs.iter().map(of).collect::<Vec<_>>()).context("nothing measured")?;
    Ok(Row::new(what, Goal::AtMost(most), unit, median.value).interval(median.interval))
}

fn median_of(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let values: Vec<f64> = runs.iter().map(of).collect();
    Median::of(&values).map_or(0.0, |median| median.value)
}

/// Of each run and the other's beside it.
fn ratio(
    what: &str,
    most: f64,
    ours: &[Run],
    theirs: &[Run],
    of: impl Fn(&Run) -> f64,
) -> Result<Row> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(o, t)| of(o) / of(t)).collect();
    let detail = format!("{:.1} / {:.1}", median_of(ours, &of), median_of(theirs, &of));
    let median = Median::of(&ratios).context("nothing measured")?;
    Ok(Row::new(what, Goal::AtMost(most), "", median.value)
        .interval(median.interval)
        .detail(detail))
}

fn generate(context: &Context, connections: &str, clients: &str) -> Result<PathBuf> {
    let directory = context.file(&format!("generated-{connections}"));
    // A tenth of the connections together, at most.
    let (phantoms, open) = if connections == "1000" { ("23", "45") } else { ("997", "97") };
    let mut command = Command::new(context.binary("lab"));
    command.arg("generate").args(["--connections", connections, "--clients", clients]);
    command.args(["--health", "3600", "--phantoms", phantoms, "--open", open]);
    process::output(command.arg("-o").arg(&directory))?;
    Ok(directory)
}

fn report(context: &Context, directory: &Path) -> Result<Run> {
    let output = directory.join("report");
    let mut command = Command::new(context.binary("analyzer"));
    command.arg("report").arg(directory.join("capture"));
    command.arg("--client").arg(directory.join("clients.jsonl")).arg("-o").arg(&output);
    // There are phantoms: 99.
    let run = watched(command.stdout(Stdio::null()), 99)?;
    let found = read_json(&output.join("report.json"))?;
    let answers = read_json(&directory.join("answers.json"))?;
    let phantoms = &found["captures"][0]["servers"][0]["phantoms"]["at_end"];
    let failed = &found["captures"][0]["handshakes"]["failed"];
    let matched = &found["clients"]["matched"];
    ensure!(
        (phantoms, failed, matched)
            == (&answers["phantoms"], &answers["failed"], &answers["clients"]["matched"]),
        "the report on {} says {phantoms} phantoms, {failed} failures and {matched} clients",
        directory.display()
    );
    Ok(run)
}

/// A script that prints its answers as JSON.
fn peer(
    context: &Context,
    python: &Path,
    name: &str,
    script: &str,
    directory: &Path,
) -> Result<Run> {
    let path = context.file(name);
    fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    let printed = context.file("answers-of-peer.json");
    let file = fs::File::create(&printed)
        .with_context(|| format!("cannot write {}", printed.display()))?;
    let threads = thread::available_parallelism()?.to_string();
    let run = watched(Command::new(python).arg(&path).arg(directory).arg(threads).stdout(file), 0)?;
    check(&read_json(&printed)?, &read_json(&directory.join("answers.json"))?)
        .with_context(|| format!("{name} on {}", directory.display()))?;
    Ok(run)
}

fn check(found: &Value, answers: &Value) -> Result<()> {
    let counts = |value: &Value| -> BTreeMap<String, u64> {
        let all = value.as_object().into_iter().flatten();
        all.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
    };
    ensure!(counts(&found["outcomes"]) == counts(&answers["outcomes"]), "other outcomes: {found}");
    ensure!(found["phantoms"][0] == answers["phantoms"], "other phantoms: {found}");
    ensure!(found["matched"] == answers["clients"]["matched"], "other clients: {found}");
    for step in answers["steps"].as_array().into_iter().flatten() {
        let name = format!("{} {}", text(&step["from"]), text(&step["to"]));
        let names = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
        for (place, quantile) in names.into_iter().enumerate() {
            let (theirs, truth) = (found["steps"][&name][place].as_f64(), step[quantile].as_f64());
            ensure!(theirs == truth, "{quantile} of {name}: {theirs:?}, and not {truth:?}");
        }
    }
    Ok(())
}

/// Exports the capture to `fleet` beside it.
fn pack(context: &Context, directory: &Path) -> Result<Row> {
    let capture = directory.join("capture");
    let fleet = directory.join("fleet");
    let mut export = Command::new(context.binary("analyzer"));
    export.arg("export").arg(&capture).arg("--parquet").arg(&fleet);
    process::output(&mut export)?;
    let answers = read_json(&directory.join("answers.json"))?;
    let legs = answers["attempts"].as_f64().zip(answers["plain_http"].as_f64());
    let legs = legs.map(|(attempts, plain)| attempts + plain).context("answers without legs")?;
    let recorded = size(&capture.join("connections.arrows"))?;
    let packed = size(&fleet.join("connections"))?;
    let what = "capture of 1 M legs with every stage, packed (`analyzer export`)";
    Ok(Row::new(what, Goal::AtMost(64.0), "B/leg", packed / legs)
        .detail(format!("{:.0} B/leg as recorded", recorded / legs)))
}

/// Of a file, or of all files below a directory.
fn size(path: &Path) -> Result<f64> {
    let metadata = fs::metadata(path).with_context(|| format!("no {}", path.display()))?;
    if !metadata.is_dir() {
        return Ok(metadata.len() as f64);
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

/// Other engines must give the same answers to the questions of `docs/fleet.md`, on the files of [`pack`].
fn check_fleet(context: &Context, python: &Path, directory: &Path) -> Result<()> {
    let script = context.file("ask_fleet.py");
    fs::write(&script, FLEET).with_context(|| format!("cannot write {}", script.display()))?;
    let page = crate::paths::root().join("docs").join("fleet.md");
    let mut ask = Command::new(python);
    let printed = process::output(ask.arg(&script).arg(page).current_dir(directory))?;
    let found: Value = serde_json::from_str(&printed)?;
    let answers = read_json(&directory.join("answers.json"))?;
    for engine in ["DuckDB", "ClickHouse"] {
        check_questions(&found[engine], &answers)
            .with_context(|| format!("the answers of {engine}"))?;
    }
    Ok(())
}

fn check_questions(found: &Value, answers: &Value) -> Result<()> {
    let [phantoms, failures, times] = [0, 1, 2].map(|query| &found[query]);
    ensure!(phantoms[0][2] == answers["phantoms"], "other phantoms: {phantoms}");
    let rows = || failures.as_array().into_iter().flatten();
    ensure!(rows().count() + 1 == answers["outcomes"].as_object().map_or(0, |all| all.len()));
    for row in rows() {
        ensure!(row[1] == answers["outcomes"][text(&row[0])], "other failures: {row}");
    }
    let steps = [
        ("syn_received", "established"),
        ("established", "accepted"),
        ("established", "request_received"),
        ("request_received", "response_sent"),
    ];
    for (place, (from, to)) in steps.into_iter().enumerate() {
        let all = answers["steps"].as_array().into_iter().flatten();
        let step = all.into_iter().find(|step| step["from"] == from && step["to"] == to);
        let (theirs, truth) =
            (times[0][place + 3].as_f64(), step.and_then(|s| s["p99_us"].as_f64()));
        ensure!(theirs.is_some() && theirs == truth, "p99 to {to}: {theirs:?}, and not {truth:?}");
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// How long a program takes, and the most memory that it has. Its exit code must be this one.
fn watched(command: &mut Command, expected: i32) -> Result<Run> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0.0_f64;
    let mut worked_s = 0.0_f64;
    loop {
        // The kernel keeps the peak itself, so that nothing is missed between two looks but the last.
        let status = fs::read_to_string(&status_file).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0.0));
        worked_s =
            cpu::of_process(child.id()).map_or(worked_s, |time| worked_s.max(time.as_secs_f64()));
        if let Some(status) = child.try_wait()? {
            if status.code() != Some(expected) {
                bail!("{} ended with {status}", command.get_program().display());
            }
            let seconds = start.elapsed().as_secs_f64();
            return Ok(Run { seconds, worked_s, peak_mib: peak_kib / 1024.0 });
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A Python with the peers, in a directory of its own below the target directory.
fn python() -> Result<PathBuf, String> {
    let target = crate::paths::target_dir().map_err(|error| error.to_string())?;
    let home = target.join("bench").join("python");
    let python = home.join("bin/python");
    let has_peers = || {
        let imports =
            Command::new(&python).args(["-c", "import chdb, duckdb, pandas, pyarrow"]).output();
        imports.is_ok_and(|output| output.status.success())
    };
    if !has_peers() {
        let install = || -> Result<()> {
            process::output(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
            let pip = ["-m", "pip", "install", "--quiet", "chdb", "duckdb", "pandas", "pyarrow"];
            process::output(Command::new(&python).args(pip)).map(drop)
        };
        install().map_err(|error| {
            format!("needs chdb, duckdb, pandas and pyarrow from PyPI: {error:#}")
        })?;
    }
    Ok(python)
}
