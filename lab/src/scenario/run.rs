//! Runs a scenario: server, `probe record`, clients, `analyzer report`, and the comparison of what
//! was found with what was done.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::directory::{BLOCKS, CAPTURE, REPORT, RESULTS, TRUTH, prepare};
use super::judge::{self, Comparison};
use super::network::Link;
use super::programs::{self, port};
use super::{Scenario, Verdict};
use crate::children::{command, interrupt, sibling};
use crate::error::{self, LabError, file_error};
use crate::fault::{FaultSpec, Side};
use crate::progress::Progress;
use crate::truth;

/// What `lab run` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scenario: Scenario,
    pub(crate) output: PathBuf,
    /// Shortens holds and intervals, never rates.
    pub(crate) time_scale: f64,
    /// Without the faults.
    pub(crate) fixed: bool,
    /// Faults of the server beside those of the scenario.
    pub(crate) more_faults: Vec<FaultSpec>,
    pub(crate) json: bool,
}

/// After the load: the health is asked a few more times, so that what stays is seen to stay.
const AFTERWARDS: Duration = Duration::from_secs(3);

const WATCH: &str = "probe watch";
/// What it says once it is attached.
const WATCHING: &str = "watching";

/// The lab's own, for tokens that are worth nothing elsewhere.
pub(super) const SECRET: &str = "lab";

/// `probe watch` takes no shorter one.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn run(
    options: &Options,
    stopped: impl Future<Output = i32>,
) -> anyhow::Result<()> {
    tokio::pin!(stopped);
    let began = Instant::now();
    // Dropping a stage kills its processes and removes its namespaces.
    let mut stage = tokio::select! {
        stage = Stage::set_up(options) => stage?,
        signal = &mut stopped => return Err(LabError::Signal(signal).into()),
    };
    let mut enough_upgraded = true;
    let signal = tokio::select! {
        enough = stage.load() => {
            enough_upgraded = enough?;
            None
        }
        signal = &mut stopped => Some(signal),
    };
    stage.end_recording().await?;
    if let Some(signal) = signal {
        return Err(LabError::Signal(signal).into());
    }
    tokio::select! {
        comparison = stage.judge() => {
            let (comparison, judged) = comparison?;
            conclude(options, &comparison, judged, enough_upgraded, began.elapsed())
        }
        signal = &mut stopped => Err(LabError::Signal(signal).into()),
    }
}

/// A scenario that is set up: the server listens, and the probe records.
struct Stage<'a> {
    run: Run<'a>,
    analyzer: PathBuf,
    server: Child,
    address: String,
    /// None where this host cannot run the kernel programs.
    record: Option<Child>,
    watch: Option<Child>,
    /// Hands on the blocks of `probe watch`, once the load is under way.
    teller: Option<JoinHandle<()>>,
}

impl<'a> Stage<'a> {
    async fn set_up(options: &'a Options) -> anyhow::Result<Self> {
        let (probe, analyzer) = (sibling("probe")?, sibling("analyzer")?);
        prepare(&options.output)?;
        let run = Run {
            options,
            lab: std::env::current_exe()?,
            link: (options.scenario.cut_off > 0).then(Link::create).transpose()?,
        };
        let (server, bound) = run.serve().await?;
        let address = bound.address.clone();
        // The watch first: it is then attached when the recording is, and the load begins.
        let mut watch = run.watch(&probe, &address).await?;
        let record = run.record(&probe, &bound).await?;
        if let (None, Some(watch)) = (&record, &mut watch) {
            // Its polls would be connections in the other's eyes, which cannot tell them apart.
            watch.kill().await?;
            *watch = run.watch_into_file(&probe, &address).await?;
        }
        Ok(Stage { run, analyzer, server, address, record, watch, teller: None })
    }

    /// False if fewer clients were upgraded than the scenario demands.
    async fn load(&mut self) -> anyhow::Result<bool> {
        let progress = Arc::new(Progress::start(self.run.planned()));
        let blocks = self.watch.as_mut().and_then(|watch| watch.stdout.take());
        self.teller = blocks.map(|blocks| tokio::spawn(tell(blocks, Arc::clone(&progress))));
        let enough_upgraded = self.run.load(&self.address).await?;
        let afterwards = match (&self.record, self.run.scenario().watch) {
            // The last whole block is what is compared.
            (None, Some(interval)) => 2 * self.run.scaled(interval),
            _ => AFTERWARDS,
        };
        tokio::time::sleep(afterwards).await;
        Ok(enough_upgraded)
    }

    async fn end_recording(&mut self) -> anyhow::Result<()> {
        // Before the watch, whose farewell may take seconds: they would be a tail in which nothing grows.
        if let Some(record) = &mut self.record {
            programs::end_recording(record).await?;
        }
        if let Some(watch) = &mut self.watch {
            interrupt(WATCH, watch).await?;
        }
        if let Some(teller) = self.teller.take() {
            teller.await?;
        }
        Ok(())
    }

    /// What was found against what was done, and the analyzer's own exit code.
    async fn judge(&mut self) -> anyhow::Result<(Comparison, i32)> {
        let judged = match self.record {
            Some(_) => self.run.report(&self.analyzer, &self.address).await?,
            None => 4,
        };
        interrupt("lab serve", &mut self.server).await?;
        let dir = self.run.dir();
        let hits = truth::read(&dir.join(TRUTH))?;
        let comparison = match self.record {
            Some(_) => judge::compare(self.run.scenario(), &hits, &dir.join(REPORT))?,
            None => judge::compare_polled(&hits, &dir.join(BLOCKS))?,
        };
        Ok((comparison, judged))
    }
}

/// Where a server listens, and its shards if it is a balancer.
struct Bound {
    address: String,
    shards: Vec<String>,
}

impl Bound {
    fn ports(&self) -> String {
        let all = std::iter::once(&self.address).chain(&self.shards);
        all.map(|address| port(address)).collect::<Vec<_>>().join(",")
    }
}

pub(super) struct Run<'a> {
    pub(super) options: &'a Options,
    pub(super) lab: PathBuf,
    pub(super) link: Option<Link>,
}

impl Run<'_> {
    pub(super) fn dir(&self) -> &Path {
        &self.options.output
    }

    pub(super) fn scenario(&self) -> &Scenario {
        &self.options.scenario
    }

    pub(super) fn server_namespace(&self) -> Option<&str> {
        self.link.as_ref().map(Link::server_namespace)
    }

    /// Where no balancer lies between, clients bring a token that the server checks.
    pub(super) fn signs_tokens(&self) -> bool {
        self.scenario().is_load() && self.scenario().balancer_slots.is_none()
    }

    pub(super) fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.options.time_scale)
    }

    pub(super) fn scaled_text(&self, time: Duration) -> String {
        humantime::format_duration(self.scaled(time)).to_string()
    }

    /// The server, and where it listens.
    async fn serve(&self) -> anyhow::Result<(Child, Bound)> {
        #[derive(Deserialize)]
        struct Listening {
            listening: Vec<String>,
            #[serde(default)]
            shards: Vec<String>,
        }

        let host = self
            .link
            .as_ref()
            .map_or("127.0.0.1".to_owned(), |link| link.server_address().to_string());
        let mut serve = command(self.server_namespace(), &self.lab);
        match self.scenario().balancer_slots {
            None => serve.arg("serve"),
            Some(slots) => {
                serve.args(["balance", "--spawn-shards", "--slots", &slots.to_string()]);
                serve.args(["--shard=127.0.0.1:0"; 3])
            }
        };
        serve.args(["--json", "--listen", &format!("{host}:0")]);
        serve.arg("--truth").arg(self.dir().join(TRUTH));
        if let Some((interval, patience)) = self.scenario().server_ping {
            serve.args(["--ping-interval", &self.scaled_text(interval)]);
            serve.args(["--ping-timeout", &self.scaled_text(patience)]);
        }
        if !self.options.fixed {
            for fault in self.scenario().faults {
                serve.args(["--fault", fault]);
            }
            for fault in &self.options.more_faults {
                if self.scenario().balancer_slots.is_some() && fault.side() == Side::Server {
                    serve.args(["--shard-fault", &format!("all:{}", fault.text())]);
                } else {
                    serve.args(["--fault", fault.text()]);
                }
            }
        }
        if self.signs_tokens() {
            serve.env("JWT_SECRET", SECRET);
        }
        let (server, line) = programs::serve(&mut serve, self.dir()).await?;
        let listening: Listening = serde_json::from_str(&line)?;
        let address = listening.listening.into_iter().next().unwrap_or_default();
        Ok((server, Bound { address, shards: listening.shards }))
    }

    /// `probe record`, attached. None if this host cannot, and polling will do for the scenario.
    async fn record(&self, probe: &Path, bound: &Bound) -> anyhow::Result<Option<Child>> {
        let address = &bound.address;
        let mut record = command(self.server_namespace(), probe);
        record.arg("record").arg("-o").arg(self.dir().join(CAPTURE));
        record.args(["--health", &format!("http://{address}/health"), "--port", &bound.ports()]);
        if self.scenario().is_load() {
            record.args(["--metrics", &format!("http://{address}/metrics")]);
        }
        match programs::record(&mut record).await {
            Ok(record) => Ok(Some(record)),
            Err(error) if error::exit_code(&error) == 96 && self.scenario().watch.is_some() => {
                eprintln!("going on with sock_diag polling: not exact, no capture and no report");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the load takes, if nothing is slow.
    fn planned(&self) -> Duration {
        let scenario = self.scenario();
        let stay = self.scaled(scenario.churn.unwrap_or(scenario.hold));
        let ramp = self.clients() as f64 / f64::from(scenario.ramp);
        Duration::from_secs_f64(ramp) + stay + AFTERWARDS
    }

    /// `probe watch`, whose blocks people see.
    async fn watch(&self, probe: &Path, address: &str) -> anyhow::Result<Option<Child>> {
        let Some(interval) = self.scenario().watch else { return Ok(None) };
        let mut watch = self.watch_command(probe, address, interval);
        if std::io::stderr().is_terminal() {
            watch.env("CLICOLOR_FORCE", "1");
        }
        programs::probe(watch.stdout(Stdio::piped()), WATCH, WATCHING, true).await.map(Some)
    }

    /// `probe watch --json`, for the comparison, and a line per block for people.
    async fn watch_into_file(&self, probe: &Path, address: &str) -> anyhow::Result<Child> {
        let path = self.dir().join(BLOCKS);
        let mut file = File::create(&path).map_err(|error| file_error(&path, "create", &error))?;
        let interval = self.scenario().watch.unwrap_or(AFTERWARDS);
        let mut watch = self.watch_command(probe, address, interval);
        watch.arg("--json").stdout(Stdio::piped());
        // Why it polls was said by the first.
        let mut child = programs::probe(&mut watch, WATCH, WATCHING, false).await?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        tokio::spawn(async move {
            let Some(mut lines) = lines else { return };
            while let Ok(Some(line)) = lines.next_line().await {
                // A full disk shows when the file is read back.
                let _ = writeln!(file, "{line}");
                if let Some(text) = judge::block_text(&line) {
                    eprintln!("{text}");
                }
            }
        });
        Ok(child)
    }

    fn watch_command(&self, probe: &Path, address: &str, interval: Duration) -> Command {
        let mut watch = command(self.server_namespace(), probe);
        watch.args(["watch", "--health", &format!("http://{address}/health")]);
        let interval = self.scaled(interval).max(SHORTEST_INTERVAL);
        let interval = humantime::format_duration(interval).to_string();
        watch.args(["--port", port(address), "--interval", &interval]);
        match self.scenario().checkpoints {
            None => watch.args(["--expect", &self.scenario().connections.to_string()]),
            Some(_) => {
                watch.args(["--metrics", &format!("http://{address}/metrics")]);
                watch.args(["--duration", &self.scaled_text(self.scenario().hold)])
            }
        };
        watch
    }

    /// `analyzer report`; its exit code, if it came to a judgement.
    async fn report(&self, analyzer: &Path, address: &str) -> anyhow::Result<i32> {
        let mut report = command(None, analyzer);
        report.arg("report").arg(self.dir().join(CAPTURE)).args(["--port", port(address)]);
        report.arg("--client").arg(self.dir().join(RESULTS));
        report.args(["--max-phantoms", &self.scenario().max_phantoms.to_string()]);
        if let Some(preset) = self.scenario().preset {
            report.args(["--preset", preset]);
        }
        if let Some(interval) = self.scenario().checkpoints {
            report.args(["--interval", &self.scaled_text(interval)]);
            report.args(["--duration", &self.scaled_text(self.scenario().hold)]);
        }
        report.arg("-o").arg(self.dir());
        // The report itself is on disk; people get its text, machines the comparison.
        if self.options.json {
            report.stdout(Stdio::null());
        }
        programs::report(&mut report).await
    }
}

/// Until they end.
async fn tell(blocks: ChildStdout, progress: Arc<Progress>) {
    let mut lines = BufReader::new(blocks).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        progress.line(line);
    }
}

const NEXT: &str = "
Next, on your own server (root, or the capabilities that `probe doctor` names):
  probe watch --health http://127.0.0.1:8080/health --reported .connections.active
  probe record -o capture --health http://127.0.0.1:8080/health --duration 10m
  analyzer report capture";

/// Prints what came out, writes it down, and maps it to an exit code.
fn conclude(
    options: &Options,
    comparison: &Comparison,
    judged: i32,
    enough_upgraded: bool,
    took: Duration,
) -> anyhow::Result<()> {
    let scenario = &options.scenario;
    let summary = json!({
        "schema_version": 1,
        "scenario": scenario.name,
        "time_scale": options.time_scale,
        "fixed": options.fixed,
        "duration_s": took.as_secs_f64(),
        "analyzer_exit_code": judged,
        "enough_upgraded": enough_upgraded,
        "truth": comparison.truth,
        "found": comparison.found,
        "wrongly_named": comparison.wrongly_named,
        "equal": comparison.equal,
    });
    let came_to = match scenario.verdict {
        Verdict::Thresholds => format!("exit code of the analyzer {judged}"),
        Verdict::Truth | Verdict::TruthAndThresholds => comparison.text(),
    };
    let text = format!("{} in {:.0} s: {came_to}", scenario.name, took.as_secs_f64());
    programs::tell(&options.output, options.json, &summary, &text)?;
    if scenario.verdict == Verdict::Truth && comparison.equal && !options.json {
        println!("{NEXT}");
    }
    if !comparison.equal && scenario.verdict != Verdict::Thresholds {
        return Err(programs::unequal());
    }
    if !enough_upgraded {
        let text = format!(
            "fewer than {} % of the clients were upgraded, or the server died, as `lab load` said",
            scenario.min_success
        );
        return Err(LabError::Threshold(text).into());
    }
    if scenario.verdict == Verdict::Truth {
        return Ok(());
    }
    match judged {
        0 => Ok(()),
        99 => Err(LabError::Threshold("the report's thresholds were crossed".to_owned()).into()),
        _ => Err(LabError::Inconclusive("the report is inconclusive".to_owned()).into()),
    }
}
