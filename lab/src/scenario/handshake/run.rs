//! Runs a scenario: servers, `probe record`, clients, `analyzer`, and each client's verdict.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::process::Child;

use super::judge::{self, Comparison};
use super::{Front, Handshakes};
use crate::children::{self, command, interrupt, sibling, spawn};
use crate::client::record::Record;
use crate::error::file_error;
use crate::fault::{FaultSpec, Side};
use crate::scenario::directory::{ATTEMPTS, CAPTURE, REPORT, RESULTS, TRUTH, prepare};
use crate::scenario::network::Link;
use crate::scenario::programs;
use crate::truth;

/// What `lab run` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scenario: &'static Handshakes,
    pub(crate) output: PathBuf,
    /// Shortens the hold.
    pub(crate) time_scale: f64,
    /// Without the faults.
    pub(crate) fixed: bool,
    /// Faults beside those of the scenario.
    pub(crate) more_faults: Vec<FaultSpec>,
    pub(crate) json: bool,
}

const SHARDS: usize = 3;

/// After the last client: what its close causes is recorded.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// SYN-ACKs are sent again 1, 3 and 7 s after the SYN; once one arrives, a client that has left long ago
/// answers it by RST.
const SYN_ACKS_AGAIN: Duration = Duration::from_secs(6);

pub(crate) async fn run(
    options: &Options,
    stopped: impl Future<Output = i32>,
) -> anyhow::Result<()> {
    programs::until_stopped(run_through(options), stopped).await
}

/// Dropped halfway it removes its namespaces.
async fn run_through(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let (probe, analyzer) = (sibling("probe")?, sibling("analyzer")?);
    prepare(&options.output)?;
    let mut run = Run { options, lab: std::env::current_exe()?, link: None };
    if let Some(sources) = options.scenario.deaf_sources {
        let link = Link::create()?;
        link.add_client_addresses(sources)?;
        if !options.fixed {
            link.lose_packets_to_first_client()?;
        }
        run.link = Some(link);
    }
    let (mut server, bound, mut record);
    if options.scenario.late {
        let free = Bound::free()?;
        record = run.record(&probe, &free).await?;
        (server, bound) = run.serve(Some(&free)).await?;
    } else {
        (server, bound) = run.serve(None).await?;
        record = run.record(&probe, &bound).await?;
    }
    for (wave, connections) in (1..).zip(options.scenario.waves) {
        run.load(bound.front, wave, *connections).await?;
    }
    match &run.link {
        Some(link) if !options.fixed => {
            link.heal()?;
            tokio::time::sleep(SYN_ACKS_AGAIN).await;
        }
        _ => tokio::time::sleep(AFTERWARDS).await,
    }
    programs::end_recording(&mut record).await?;
    // While the server still runs, as with a real one.
    run.report(&analyzer, bound.front).await?;
    interrupt("the server", &mut server).await?;
    let comparison = run.compare(bound.front)?;
    conclude(options, &comparison, began.elapsed())
}

/// What a server or a balancer says of where it listens.
#[derive(Debug, Deserialize)]
#[serde(from = "Said")]
struct Bound {
    front: SocketAddr,
    /// Behind a balancer.
    behind: Vec<SocketAddr>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(alias = "reserved")]
    listening: [SocketAddr; 1],
    #[serde(default)]
    shards: Vec<SocketAddr>,
    #[serde(default)]
    nobody_at: Vec<SocketAddr>,
}

impl From<Said> for Bound {
    fn from(said: Said) -> Self {
        let [front] = said.listening;
        Bound { front, behind: [said.shards, said.nobody_at].concat() }
    }
}

impl Bound {
    /// Ports of loopback that are free now, for a server that is yet to come.
    fn free() -> anyhow::Result<Self> {
        // All at once, so that none is found twice.
        let held: Vec<TcpListener> = (0..=SHARDS)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()?;
        let mut found = held.iter().map(TcpListener::local_addr);
        let front = found.next().transpose()?.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        Ok(Bound { front, behind: found.collect::<Result<_, _>>()? })
    }

    fn ports(&self) -> String {
        let all = std::iter::once(&self.front).chain(&self.behind);
        all.map(|address| address.port().to_string()).collect::<Vec<_>>().join(",")
    }
}

struct Run<'a> {
    options: &'a Options,
    lab: PathBuf,
    link: Option<Link>,
}

impl Run<'_> {
    fn dir(&self) -> &Path {
        &self.options.output
    }

    fn scenario(&self) -> &'static Handshakes {
        self.options.scenario
    }

    /// The server or balancer, and where it listens, or will: at `ports`, if they are given.
    async fn serve(&self, ports: Option<&Bound>) -> anyhow::Result<(Child, Bound)> {
        let link = self.link.as_ref();
        let host = link.map_or(Ipv4Addr::LOCALHOST.into(), Link::server_address);
        let front = ports.map_or(SocketAddr::new(host, 0), |ports| ports.front);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let shards = ports.map_or(vec![any; SHARDS], |ports| ports.behind.clone());
        let mut serve = command(link.map(Link::server_namespace), &self.lab);
        match self.scenario().front {
            Front::Server => serve.arg("serve"),
            Front::Balancer => {
                serve.args(["balance", "--spawn-shards"]);
                serve.args(shards.iter().map(|shard| format!("--shard={shard}")))
            }
        };
        serve.args(["--json", "--listen", &front.to_string()]);
        serve.arg("--truth").arg(self.dir().join(TRUTH));
        serve.args(self.scenario().setup);
        if !self.options.fixed {
            serve.args(self.scenario().faults);
            for fault in &self.options.more_faults {
                match (self.scenario().front, fault.side()) {
                    (Front::Balancer, Side::Server) => {
                        serve.args(["--shard-fault", &format!("all:{}", fault.text())]);
                    }
                    _ => {
                        serve.args(["--fault", fault.text()]);
                    }
                }
            }
        }
        if self.scenario().one_thread {
            serve.env("TOKIO_WORKER_THREADS", "1");
        }
        let (server, line) = programs::serve(&mut serve, self.dir()).await?;
        let bound: Bound = serde_json::from_str(&line)?;
        Ok((server, bound))
    }

    /// `probe record`, of what lies between a balancer and its shards as well: that is evidence.
    async fn record(&self, probe: &Path, bound: &Bound) -> anyhow::Result<Child> {
        let mut record = command(self.link.as_ref().map(Link::server_namespace), probe);
        record.arg("record").arg("-o").arg(self.dir().join(CAPTURE));
        if !self.scenario().late {
            record.args(["--health", &format!("http://{}/health", bound.front)]);
            record.args(["--metrics", &format!("http://{}/metrics", bound.front)]);
        }
        record.args(["--port", &bound.ports()]);
        programs::record(&mut record).await
    }

    /// One load from its first client to the end of its last; its results go to those before.
    async fn load(&self, address: SocketAddr, wave: u32, connections: u64) -> anyhow::Result<()> {
        let results = self.dir().join("results-wave.jsonl");
        let scenario = self.scenario();
        let mut load = command(self.link.as_ref().map(Link::client_namespace), &self.lab);
        load.args(["load", "--json", "--url", &format!("ws://{address}/"), "--min-success", "0"]);
        load.args(["--connections", &connections.to_string()]);
        load.args(["--ramp", &format!("{}/s", scenario.ramp)]);
        let hold = scenario.hold.mul_f64(self.options.time_scale);
        load.args(["--hold", &humantime::format_duration(hold).to_string()]);
        load.args(scenario.clients);
        if let Some(link) = &self.link {
            for source in link.client_addresses(scenario.deaf_sources.unwrap_or(1)) {
                load.args(["--source", &source.to_string()]);
            }
        }
        load.arg("-o").arg(&results);
        load.stdout(children::log(self.dir(), "results.summary.json")?);
        eprintln!("load {wave}: {connections} clients at {}/s", scenario.ramp);
        let status = spawn(&mut load)?.wait().await?;
        if children::code(status) != 0 {
            return Err(children::unexpected("lab load", status));
        }
        let all = self.dir().join(RESULTS);
        let appended = std::fs::read(&results).and_then(|lines| {
            use std::io::Write as _;
            let mut file = std::fs::File::options().create(true).append(true).open(&all)?;
            file.write_all(&lines)?;
            std::fs::remove_file(&results)
        });
        appended.map_err(|error| file_error(&all, "append to", &error))
    }

    /// `analyzer report`, and what it says of each attempt.
    async fn report(&self, analyzer: &Path, address: SocketAddr) -> anyhow::Result<()> {
        let (capture, port) = (self.dir().join(CAPTURE), address.port().to_string());
        let mut report = command(None, analyzer);
        report.arg("report").arg(&capture).args(["--port", &port]);
        report.arg("--client").arg(self.dir().join(RESULTS)).arg("-o").arg(self.dir());
        report.stdout(Stdio::null());
        programs::report(&mut report).await?;
        let mut attempts = command(None, analyzer);
        attempts.arg("handshakes").arg(&capture).args(["--attempts", "--port", &port]);
        attempts.stdout(children::log(self.dir(), ATTEMPTS)?);
        let status = spawn(&mut attempts)?.wait().await?;
        match children::code(status) {
            0 => Ok(()),
            _ => Err(children::unexpected("analyzer handshakes", status)),
        }
    }

    fn compare(&self, address: SocketAddr) -> anyhow::Result<Comparison> {
        let dir = self.dir();
        let clients: Vec<Record> = judge::lines(&dir.join(RESULTS))?;
        // What comes first of several is the scenario's to say, unless more was added.
        let asked = self.options.more_faults.is_empty();
        let first = if self.options.fixed { None } else { self.scenario().first };
        let ranked = judge::ranked(&dir.join(REPORT))?;
        let first = if asked { first } else { ranked.first().map(|one| one.name.as_str()) };
        let first = first.map(str::to_owned);
        Ok(judge::compare(
            self.scenario(),
            address.port(),
            first.as_deref(),
            &truth::read(&dir.join(TRUTH))?,
            &clients,
            &judge::lines(&dir.join(ATTEMPTS))?,
            ranked,
        ))
    }
}

/// Prints what came out, and writes it down.
fn conclude(options: &Options, comparison: &Comparison, took: Duration) -> anyhow::Result<()> {
    let summary = json!({
        "schema_version": 1,
        "scenario": options.scenario.name,
        "time_scale": options.time_scale,
        "fixed": options.fixed,
        "duration_s": took.as_secs_f64(),
        "handshakes": comparison,
        "equal": comparison.equal,
    });
    let name = options.scenario.name;
    let text = format!("{name} in {:.0} s: {}", took.as_secs_f64(), comparison.text());
    programs::tell(&options.output, options.json, &summary, &text)?;
    if comparison.equal { Ok(()) } else { Err(programs::unequal()) }
}
