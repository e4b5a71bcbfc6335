//! The command line.

mod record;
mod serve;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    record::Record,
    serve::{Listen, Serve},
};
use crate::{
    config::Settings,
    filter::Filter,
    health::{
        listing::PeerPath, metrics::MetricsPoller, path::FieldPath, poller::Poller,
        request::Target, url::HealthUrl,
    },
    kernel,
    truth::agent,
    watch::{resources::FieldChoice, verdict::MaxPhantoms},
};

#[derive(Debug, Parser)]
#[command(
    name = "probe",
    version,
    about = "Exact connection counts from the kernel, per container, and the phantoms in what servers report",
    after_help = "Examples:
  sudo probe count                                   exact counts now
  sudo probe count --port 3005 --role passive --json
  sudo probe connections --state close_wait --older-than 5m
  sudo probe watch --health http://127.0.0.1:3005/health --interval 10s --max-phantoms 2%
  sudo probe record -o capture --health http://127.0.0.1:3005/health --duration 10m
  sudo probe top                                     the live view; `probe` alone does the same
  probe doctor                                       what can run on this host, and why

Exit codes: 0 done, 1 a bug, 2 wrong usage or bad input, 4 inconclusive, 96 this host cannot do it,
99 a threshold was crossed, 130 and 143 stopped by SIGINT and SIGTERM."
)]
pub(crate) struct Cli {
    /// Where a running agent (`probe serve`) is asked
    #[arg(long, global = true, value_name = "PATH", default_value = agent::SOCKET)]
    pub(crate) agent_socket: PathBuf,

    /// Settings in TOML [default: /etc/groundtruth/probe.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What stands in the file or the environment, and so may change on a reload.
    #[arg(skip)]
    pub(crate) settings: Settings,

    /// Without a command: `probe top` on a terminal, else `probe count`
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What can run on this host, what cannot, and why
    Doctor(Doctor),
    /// Exact counts now, per container, port, role and state
    Count(Count),
    /// The sockets behind the counts
    Connections(Connections),
    /// Hold what a server reports against the kernel's count, a block per interval
    Watch(Watch),
    /// Write a capture for `analyzer`
    Record(Record),
    /// The live view in a terminal, also of a capture
    Top(Top),
    /// Run the agent: metrics, JSON, and counts for the other commands
    Serve(Serve),
    /// End the agent
    Stop(Stop),
    /// Check and show the settings from the configuration file and the environment
    Config(Config),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate(Generate),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  probe doctor
  sudo probe doctor --json
  sudo probe doctor --cost                           what the programs cost here

--cost makes connections on loopback for a few seconds, and reads the kernel's own statistics.
Exits 96 if exact counts cannot be had on this host.")]
pub(crate) struct Doctor {
    /// Measure what the kernel programs cost on this host
    #[arg(long)]
    pub(crate) cost: bool,

    /// With --cost: of the programs that `probe serve --counts-only` loads
    #[arg(long, requires = "cost")]
    pub(crate) counts_only: bool,

    /// With --cost: for how long
    #[arg(long, value_name = "3s", default_value = "3s", requires = "cost", value_parser = interval)]
    pub(crate) duration: Duration,

    #[command(flatten)]
    pub(crate) hooks: Hooks,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which of the kernel's hooks are used.
#[derive(Args, Clone, Debug)]
pub(crate) struct Hooks {
    /// Do without this hook, as if this host did not grant it (names as in `probe doctor`); may be
    /// repeated. A running agent has its own
    #[arg(long, value_name = "HOOK", value_parser = kernel::hooks::optional)]
    without_hook: Vec<Vec<&'static str>>,
}

impl Hooks {
    pub(crate) fn programs(&self) -> Vec<&'static str> {
        self.without_hook.concat()
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe count
  sudo probe count --container web --port 3005
  sudo probe count --role passive --json
  probe count --remote https://vm:9464 --token-file token

ACCEPTED counts since the programs were attached. Without root or BPF the counts come from sock_diag
and are not exact; --require-exact makes that, and an agent that has lost some, an error (exit 96).")]
pub(crate) struct Count {
    #[command(flatten)]
    pub(crate) filter: Filter,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Exit 96 where counts are not exact, whoever counts
    #[arg(long)]
    pub(crate) require_exact: bool,

    #[command(flatten)]
    pub(crate) remote: Remote,

    #[command(flatten)]
    pub(crate) trust: Trust,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe connections --port 3005
  sudo probe connections --state close_wait --older-than 5m
  sudo probe connections --pid 4711 --json
  probe connections --remote https://vm:9464 --token-file token --state close_wait

An established connection is \"silent\" if its peer has left two keepalive probes or retransmissions
unanswered.")]
pub(crate) struct Connections {
    #[command(flatten)]
    pub(crate) filter: Filter,

    /// Only sockets that this process holds
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Only connections that were established at least this long ago; those from before the
    /// programs were attached count from then on
    #[arg(long, value_name = "5m", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,

    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: Remote,

    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// The agent of another host.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Remote")]
pub(crate) struct Remote {
    /// Ask the agent of another host, which needs neither root nor BPF here
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<HealthUrl>,

    /// The token that the other agent wants to see
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Who is trusted over https.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Trust these certificates too, for https (PEM)
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) ca: Option<PathBuf>,
}

/// How a server is asked what it holds.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Health")]
pub(crate) struct Health {
    /// Where the server reports its connections
    #[arg(long, value_name = "URL")]
    pub(crate) health: Option<HealthUrl>,

    /// Where in the JSON body the number of connections stands
    #[arg(long, value_name = "PATH", default_value = ".checks.capacity.current")]
    pub(crate) reported: FieldPath,

    /// Where in the body a balancer lists its shards: the report is held against the ports of --port
    /// without theirs
    #[arg(long, value_name = "PATH", default_value = ".shards")]
    pub(crate) shards: FieldPath,

    /// How long an answer may take
    #[arg(long, value_name = "5s", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) health_timeout: Duration,

    #[command(flatten)]
    pub(crate) trust: Trust,
}

impl Health {
    pub(crate) fn target(&self, url: &HealthUrl) -> Target {
        Target { url: url.clone(), timeout: self.health_timeout, ca: self.trust.ca.clone() }
    }

    /// `None` where no health is asked for.
    pub(crate) fn poller(&self) -> Option<Poller> {
        Some(Poller {
            target: self.target(self.health.as_ref()?),
            reported: self.reported.clone(),
            shards: self.shards.clone(),
        })
    }
}

/// What else a server says of itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct Metrics {
    /// The server's or proxy's status page: Prometheus metrics, nginx stub_status, haproxy's CSV
    /// (/stats;csv) or Envoy's /stats, told by its content; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Vec<HealthUrl>,

    /// A metric to take beside go_goroutines, process_open_fds, process_resident_memory_bytes and
    /// the like; may be repeated
    #[arg(long, value_name = "NAME", requires = "metrics")]
    pub(crate) metric: Vec<String>,
}

impl Metrics {
    /// One for each page; a metric that was asked for by name may be on any of them.
    pub(crate) fn pollers(&self, health: &Health) -> Vec<MetricsPoller> {
        let poller = |url| MetricsPoller {
            target: health.target(url),
            names: self.metric.clone(),
            alone: self.metrics.len() == 1,
        };
        self.metrics.iter().map(poller).collect()
    }
}

/// What a server is asked, and how often.
#[derive(Args, Clone, Debug)]
pub(crate) struct Questions {
    #[command(flatten)]
    pub(crate) health: Health,

    #[command(flatten)]
    pub(crate) metrics: Metrics,

    /// The server's own list of its connections, as JSON
    #[arg(long, value_name = "URL", help_heading = "Table")]
    pub(crate) table: Option<HealthUrl>,

    /// Where in the list the peer's address and port stand
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Table",
        default_value = ".connections[].peer",
        requires = "table"
    )]
    pub(crate) peer: PeerPath,

    /// Time between requests
    #[arg(long, value_name = "1s", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
}

impl Questions {
    /// True if there is nothing to ask.
    pub(crate) fn is_nothing(&self) -> bool {
        self.health.health.is_none() && self.metrics.metrics.is_empty() && self.table.is_none()
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe watch --health http://127.0.0.1:3005/health
  sudo probe watch --health http://127.0.0.1:3005/health --port 3005 --interval 10s --max-phantoms 2%
  sudo probe watch --health http://127.0.0.1:8080/status --reported .connections.active --port 3005
  sudo probe watch --health http://127.0.0.1:3005/health --expect 1000 --until-idle --json
  sudo probe watch --health http://127.0.0.1:3005/health --metrics http://127.0.0.1:3005/metrics
  sudo probe watch --interval 3s --health http://127.0.0.1:3005/health      a balancer and its shards
  sudo probe watch --metrics http://127.0.0.1:3005/metrics --interval 2m --duration 30m    leaks

A phantom is a connection that the server reports and the kernel does not have. Ctrl-C ends it with
the shutdown check. Exits 99 if --max-phantoms was crossed, 4 if nothing could be judged.

With --metrics as well, a block also says what has grown since the first.

Without --health: a baseline of goroutines, descriptors, memory and sockets, then a checkpoint per
interval. Exits 99 if goroutines grow by 10 a minute or descriptors by 5, at a restart, a page that
does not answer, or an end before --duration.

A balancer's body may list its shards, as .shards[] with connections, capacity, available, name and
address (or url, or port): each is held against the kernel's count of its port. Yellow from 80 % of
its slots, or 2 % apart from the kernel; red from 95 %, or 10 % apart.")]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) filter: Filter,

    #[command(flatten)]
    pub(crate) health: Health,

    #[command(flatten)]
    pub(crate) metrics: Metrics,

    /// Time between blocks
    #[arg(long, value_name = "10s", default_value = "10s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Stop after this long
    #[arg(long, value_name = "10m", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Stop once the kernel's count is back where it was at the start
    #[arg(long)]
    pub(crate) until_idle: bool,

    /// More phantoms than this (a number, or a share of what is reported) end in exit code 99
    #[arg(long, value_name = "2%|20", default_value = "2%")]
    pub(crate) max_phantoms: MaxPhantoms,

    /// How many connections the load opens: shows the ramp's progress
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<u64>,

    /// The load client's results (JSON lines): shows messages and errors
    #[arg(long, value_name = "FILE")]
    pub(crate) client: Option<PathBuf>,

    /// Where in the body the server's resources stand: max, cpu, memory, memory-limit, goroutines,
    /// goroutines-limit; default is the shape .checks.memory.used_mb and so on; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) field: Vec<FieldChoice>,

    /// Print one JSON object per block
    #[arg(long)]
    pub(crate) json: bool,

    /// Exit 96 where counts are not exact at the start; if they come to that later, the verdict is
    /// inconclusive
    #[arg(long)]
    pub(crate) require_exact: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe top
  sudo probe top --port 3005,3002-3004
  sudo probe top --health http://127.0.0.1:3005/health
  probe top --remote https://vm:9464 --token-file token
  probe top --replay capture

Keys: arrows select, Enter goes into a port and then into its connections, Esc back, s sorts,
/ searches, p pauses, ? shows all keys, q quits. A capture also takes space (play), comma and full
stop (a second), left and right (ten), + and - (speed).")]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) filter: Filter,

    #[command(flatten)]
    pub(crate) health: Health,

    /// Time between health requests
    #[arg(long, value_name = "2s", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Show this capture instead of the kernel
    #[arg(long, value_name = "DIR", conflicts_with_all = ["health", "interval"])]
    pub(crate) replay: Option<PathBuf>,

    /// Take clicks: one selects a row, one on the selected row goes into it, the right one back.
    /// (Most terminals select text with Shift held then)
    #[arg(long)]
    pub(crate) mouse: bool,

    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe stop
  sudo probe stop --purge")]
pub(crate) struct Stop {
    /// Also remove the kernel programs and maps that stay pinned for the next agent
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  probe config check
  probe config check probe.toml
  probe config show
  probe config show serve

The file has the flags as keys, with _ for -: at the top for every command that has them, in a table
such as [serve] for that command alone. The command line goes before the environment
(PROBE_HEALTH_TIMEOUT), that before the file. `kill -HUP` makes the agent read it again.")]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) task: ConfigTask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigTask {
    /// Whether the commands would take a file; exits 2 and says each fault's line if not
    Check {
        /// [default: the one that the commands read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// What is set, and where
    Show {
        /// Every flag of this command, with its default
        #[arg(value_name = "COMMAND")]
        command: Option<String>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  probe generate -o out      man pages to out/man1, completions to out/completions")]
pub(crate) struct Generate {
    /// A directory, made where it is missing
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("too short: expected 100ms or more".into());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
