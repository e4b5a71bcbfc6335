//! `cargo xtask bench`: what the probe costs, as ratios against going without it and against what
//! people use instead, in alternating pairs; written to `docs/performance.md`.
//!
//! A topic is a file with a function that measures some rows ([`TOPICS`]).

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{self, say};
use crate::{build_ebpf, paths, setup};

mod agent;
mod analysis;
mod capture;
mod cpu;
mod crowd;
mod demo;
mod hooks;
mod page;
mod probe;
mod process;
mod row;
mod server;
mod size;
mod statistics;

pub(crate) use crowd::{Serve, serve};
use row::Row;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask bench                 everything, in release builds, and write docs/performance.md
  cargo xtask bench server          one topic; the page keeps what it has of the others
  cargo xtask bench --quick         two minutes, in builds for tests: fails only where a figure
                                    is three times worse than its goal
  sudo unshare --net sh -c 'ip link set lo up && exec cargo xtask bench capture'
                                    where iptables track connections: their table fills up

Needs root. What is not installed leaves its row out (Debian: apt-get install nginx wrk iperf3
libbpf-tools).")]
pub(crate) struct Options {
    /// Fewer rounds in builds without optimisation, guarded only against collapse; writes no page
    #[arg(long)]
    quick: bool,

    /// Only these topics
    #[arg(value_name = "TOPIC", value_parser = names())]
    topics: Vec<String>,
}

/// Rows that are measured together.
struct Topic {
    name: &'static str,
    /// Heading on the page.
    title: &'static str,
    /// What is built for it, beside probe and lab.
    builds: &'static [&'static str],
    /// Also in a quick run.
    quick: bool,
    measure: fn(&Context) -> Result<Vec<Row>>,
}

const TOPICS: [Topic; 7] = [
    Topic {
        name: "server",
        title: "What a busy server notices",
        builds: &[],
        quick: true,
        measure: server::measure,
    },
    Topic {
        name: "hooks",
        title: "What the kernel programs take",
        builds: &[],
        quick: true,
        measure: hooks::measure,
    },
    Topic {
        name: "agent",
        title: "What the agent holds, and how fast it answers",
        builds: &[],
        quick: true,
        measure: agent::measure,
    },
    Topic {
        name: "capture",
        title: "What a recording takes and keeps",
        builds: &[],
        quick: true,
        measure: capture::measure,
    },
    Topic {
        name: "size",
        title: "What is shipped",
        builds: &[],
        quick: false,
        measure: size::measure,
    },
    Topic {
        name: "demo",
        title: "How long a newcomer waits",
        builds: &[],
        quick: false,
        measure: demo::measure,
    },
    Topic {
        name: "analysis",
        title: "How long an analysis of the largest runs is waited for",
        builds: &["analyzer"],
        quick: false,
        measure: analysis::measure,
    },
];

fn names() -> Vec<&'static str> {
    TOPICS.iter().map(|topic| topic.name).collect()
}

/// How to measure.
struct Context {
    quick: bool,
    /// Directory of the workspace's binaries.
    binaries: PathBuf,
    /// For configurations, logs and captures; empty at first.
    scratch: PathBuf,
}

impl Context {
    fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Alternating pairs, or repetitions.
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 15 }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !command::is_root() {
        bail!("measuring the kernel programs needs root: run `sudo cargo xtask bench`");
    }
    let chosen: Vec<&Topic> = TOPICS
        .iter()
        .filter(|topic| match options.topics.as_slice() {
            [] => topic.quick || !options.quick,
            names => names.iter().any(|name| name == topic.name),
        })
        .collect();
    let context = prepare(options, &chosen)?;
    // Shared with the end-to-end tests: neither measures the other.
    let lock = std::env::temp_dir().join("groundtruth-e2e.lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock().context("cannot wait for the tests that use this machine")?;

    let start = Instant::now();
    let mut collapsed = Vec::new();
    for topic in chosen {
        if !options.quick {
            wait_for_time_wait();
        }
        say(&format!("measuring: {}", topic.name));
        let rows = (topic.measure)(&context)
            .with_context(|| format!("cannot measure the topic {}", topic.name))?;
        println!("{}", page::table(topic.title, &rows));
        collapsed.extend(rows.iter().filter(|row| row.collapsed()).map(|row| row.what.clone()));
        if !options.quick {
            page::keep(topic.name, &rows)?;
        }
    }
    say(&format!("measured in {:.0} s", start.elapsed().as_secs_f64()));
    if !options.quick {
        page::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    for what in &collapsed {
        println!("collapsed: {what}: more than three times worse than its goal");
    }
    Ok(if collapsed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an earlier topic has left in TIME_WAIT, a minute at most, would be walked by whatever looks at all
/// sockets.
fn wait_for_time_wait() {
    let deadline = Instant::now() + Duration::from_secs(70);
    let left = || {
        let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
        let mut words = sockets.split_whitespace().skip_while(|word| *word != "tw");
        words.nth(1)?.parse().ok()
    };
    while left().is_some_and(|left: u32| left > 100) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(500));
    }
}

/// Builds, and makes an empty scratch directory.
fn prepare(options: &Options, topics: &[&Topic]) -> Result<Context> {
    setup::run()?;
    build_ebpf::build()?;
    let mut build = command::cargo()?;
    build.args(["build", "--bin", "probe", "--bin", "lab"]);
    for name in topics.iter().flat_map(|topic| topic.builds) {
        build.args(["--bin", name]);
    }
    let profile = if options.quick { "debug" } else { "release" };
    if !options.quick {
        build.arg("--release");
    }
    command::run_timed("building the binaries", &mut build)?;
    let target = paths::target_dir()?;
    let scratch = target.join("bench").join("scratch");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot empty {}", scratch.display()))?;
    }
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    Ok(Context { quick: options.quick, binaries: target.join(profile), scratch })
}
