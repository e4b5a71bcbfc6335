//! Runs a leak scenario: server, `probe record`, loads, `analyzer report`, and the comparison.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::process::Child;

use super::judge::{self, Comparison};
use super::{Leaks, Load};
use crate::children::{self, command, interrupt, sibling, spawn};
use crate::error::{LabError, file_error};
use crate::scenario::directory::{CAPTURE, REPORT, RESULTS, TRUTH, prepare};
use crate::scenario::programs::{self, port};
use crate::truth;

/// What `lab run` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scenario: &'static Leaks,
    pub(crate) output: PathBuf,
    /// Shortens how long connections stay.
    pub(crate) time_scale: f64,
    /// Without the bugs.
    pub(crate) fixed: bool,
    pub(crate) json: bool,
}

/// The health is asked so often, and for so long before and after the load, so that the baseline is a
/// server without clients and what stays is seen to stay.
const INTERVAL: &str = "500ms";
const BEFORE: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(4);

pub(crate) async fn run(
    options: &Options,
    stopped: impl Future<Output = i32>,
) -> anyhow::Result<()> {
    programs::until_stopped(run_through(options), stopped).await
}

async fn run_through(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let (probe, analyzer) = (sibling("probe")?, sibling("analyzer")?);
    prepare(&options.output)?;
    let run = Run { options, lab: std::env::current_exe()? };
    let (mut server, address) = run.serve().await?;
    let mut record = run.record(&probe, &address).await?;
    tokio::time::sleep(BEFORE).await;
    run.load(&address).await?;
    tokio::time::sleep(AFTERWARDS).await;
    programs::end_recording(&mut record).await?;
    let judged = run.report(&analyzer, &address).await?;
    interrupt("lab serve", &mut server).await?;
    let dir = &options.output;
    let hits = truth::read(&dir.join(TRUTH))?;
    let comparison = judge::compare(options.scenario, &hits, &dir.join(REPORT))?;
    conclude(options, &comparison, judged, began.elapsed())
}

struct Run<'a> {
    options: &'a Options,
    lab: PathBuf,
}

impl Run<'_> {
    fn dir(&self) -> &Path {
        &self.options.output
    }

    async fn serve(&self) -> anyhow::Result<(Child, String)> {
        #[derive(Deserialize)]
        struct Listening {
            listening: [String; 1],
        }

        let mut serve = command(None, &self.lab);
        serve.args(["serve", "--json", "--listen", "127.0.0.1:0", "--managers"]);
        serve.arg("--truth").arg(self.dir().join(TRUTH));
        for load in self.options.scenario.loads {
            let policy = if self.options.fixed { load.fixed } else { load.bug };
            if !policy.is_empty() {
                serve.args(["--manager-bug", policy]);
            }
        }
        let (server, line) = programs::serve(&mut serve, self.dir()).await?;
        let Listening { listening: [address] } = serde_json::from_str(&line)?;
        Ok((server, address))
    }

    /// The number that is held against the kernel's is that of the managers.
    async fn record(&self, probe: &Path, address: &str) -> anyhow::Result<Child> {
        let page = |path: &str| format!("http://{address}/{path}");
        let mut record = command(None, probe);
        record
            .arg("record")
            .arg("-o")
            .arg(self.dir().join(CAPTURE))
            .args(["--port", port(address)]);
        record.args(["--health", &page("health"), "--reported", ".managers.current"]);
        record.args(["--metrics", &page("metrics"), "--interval", INTERVAL]);
        record.args(["--table", &page("managers"), "--peer", ".managers[].peer"]);
        programs::record(&mut record).await
    }

    /// Every load, from the first client to the end of the last.
    async fn load(&self, address: &str) -> anyhow::Result<()> {
        let loads = self.options.scenario.loads;
        let mut running = Vec::new();
        for load in loads {
            running.push((load, self.client(load, address)?));
        }
        for (load, child) in &mut running {
            let status = child.wait().await?;
            if children::code(status) != 0 {
                return Err(children::unexpected(format!("lab load of {}", load.bug), status));
            }
        }
        let mut all = Vec::new();
        for load in loads {
            let path = self.results(load);
            let lines = std::fs::read(&path).map_err(|error| file_error(&path, "read", &error))?;
            all.extend(lines);
            std::fs::remove_file(&path).map_err(|error| file_error(&path, "remove", &error))?;
        }
        let path = self.dir().join(RESULTS);
        std::fs::write(&path, all).map_err(|error| file_error(&path, "write", &error))
    }

    fn results(&self, load: &Load) -> PathBuf {
        self.dir().join(format!("results-{}.jsonl", load.bug))
    }

    fn client(&self, load: &Load, address: &str) -> anyhow::Result<Child> {
        let stay = load.stay.mul_f64(self.options.time_scale);
        let mut client = command(None, &self.lab);
        let fixed = self.options.fixed && !load.fixed.is_empty();
        let user = if fixed { load.fixed } else { load.bug };
        client.args(["load", "--url", &format!("ws://{address}/?user={user}")]);
        client.args(["--connections", &load.connections.to_string(), "--ramp", load.ramp]);
        client.args(["--stay", &humantime::format_duration(stay).to_string()]);
        client.arg("-o").arg(self.results(load));
        client.stdout(Stdio::null()).stderr(children::log(self.dir(), "load.log")?);
        spawn(&mut client)
    }

    /// `analyzer report`; its exit code, if it came to a judgement.
    async fn report(&self, analyzer: &Path, address: &str) -> anyhow::Result<i32> {
        let mut report = command(None, analyzer);
        report.arg("report").arg(self.dir().join(CAPTURE)).args(["--port", port(address)]);
        report.arg("--client").arg(self.dir().join(RESULTS));
        report.args(["--preset", self.options.scenario.preset]);
        report.args(["--series", "managers=.managers.current"]);
        report.args(["--series", "cleanup_ms=.managers.cleanup_ms_max"]);
        let emergency = ".managers.emergency_effective_percent";
        report.args(["--series", &format!("emergency_effective_percent={emergency}")]);
        report.arg("-o").arg(self.dir());
        if self.options.json {
            report.stdout(Stdio::null());
        }
        programs::report(&mut report).await
    }
}

/// Prints what came out, writes it down, and maps it to an exit code.
fn conclude(
    options: &Options,
    comparison: &Comparison,
    judged: i32,
    took: Duration,
) -> anyhow::Result<()> {
    let scenario = options.scenario;
    let summary = json!({
        "schema_version": 1,
        "scenario": scenario.name,
        "time_scale": options.time_scale,
        "fixed": options.fixed,
        "duration_s": took.as_secs_f64(),
        "analyzer_exit_code": judged,
        "managers": comparison,
        "equal": comparison.equal,
    });
    let text = format!("{} in {:.0} s: {}", scenario.name, took.as_secs_f64(), comparison.text());
    programs::tell(&options.output, options.json, &summary, &text)?;
    if !comparison.equal {
        return Err(programs::unequal());
    }
    match judged {
        0 => Ok(()),
        99 => Err(LabError::Threshold("the report's thresholds were crossed".to_owned()).into()),
        _ => Err(LabError::Inconclusive("the report is inconclusive".to_owned()).into()),
    }
}
