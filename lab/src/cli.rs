//! The command line: one place for every flag and its help.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::balancer::{self, Policy, Role, ShardFault};
use crate::churn::{self, ChurnEnd};
use crate::client::{self, EndSpec};
use crate::fault::{FaultSpec, Side};
use crate::scenario::{self, Scenario};
use crate::server;
use crate::sink::SinkMode;
use crate::units::{Amount, Ramp, Window, duration, duration_or_ms, name_and_amount};

/// Servers, clients and faults whose truth is known.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  lab serve --listen 127.0.0.1:8080 --fault app-leak-on-rst --truth truth.jsonl
  lab load --url ws://127.0.0.1:8080/ --connections 1000 --ramp 100/s --hold 30s --end rst:45
  lab churn --to 127.0.0.1:9000 --count 300000
  sudo lab run demo -o /tmp/demo

Exit codes: 0 done, 1 a bug, 2 wrong usage, 4 inconclusive, 96 this host cannot, 99 a threshold
was crossed, 130 and 143 stopped by a signal."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A WebSocket server that echoes, reports its health, and has the faults it is given
    #[command(after_help = crate::fault::help(Side::Server), after_long_help = format!("{}
Examples:
  lab serve
  lab serve --listen 127.0.0.1:0 --listen [::1]:0 --json
  lab serve --fault app-leak-on-rst:45 --truth truth.jsonl
  lab serve --ping-interval 5s --ping-timeout 5s --fault app-leak-on-timeout:50%

Served beside the WebSockets:
  /health       .checks.capacity.current is what the server believes; goroutines are its tasks
  /metrics      Prometheus: process_open_fds, process_resident_memory_bytes, lab_tasks, …
  /connections  the server's own table: .connections[].peer", crate::fault::help(Side::Server)))]
    Serve(Serve),

    /// WebSocket clients against any server, one JSON line each
    #[command(after_help = "\
Examples:
  lab load --url ws://127.0.0.1:8080/ --connections 100 --ramp 20/s --hold 60s -o results.jsonl
  lab load --url ws://127.0.0.1:8080/ --connections 1000 --end rst:45 --end fin:10% --end-at 5s
  WS_URL=ws://127.0.0.1:8080/ MAX_CONNECTIONS=100 TEST_DURATION=30000 lab load

After the ramp every connection stays for the hold, and then leaves with a close frame. Those that
--end names leave in another way, --end-at after the ramp:
  close-frame   a close frame, and waits for the answer
  fin           closes the socket without a close frame
  rst           resets the connection (SO_LINGER 0)
  silent        stays open, but reads and answers nothing any more")]
    Load(Load),

    /// A whole scenario: server, probe, clients, analyzer, and what was found against what was done
    #[command(after_help = crate::scenario::help(), after_long_help = format!("{}
Examples:
  sudo lab run demo -o /tmp/demo
  sudo lab run validate-100 -o /tmp/v100 --time-scale 0.1
  sudo lab run app-leak-rst -o /tmp/leak --fixed --json

Written to DIR: truth.jsonl, results.jsonl, capture/, report.html, report.md, report.json and run.json.
Exit code: that of `analyzer report` (99 when phantoms cross the scenario's threshold), 1 when what
was found is not what was done; `demo` exits 0 exactly when both are equal.", crate::scenario::help()))]
    Run(Run),

    /// A balancer with slots per shard, in several processes that share port and slots
    #[command(after_help = crate::fault::help(Side::Balancer), after_long_help = format!("{}
Examples:
  lab balance --spawn-shards
  lab balance --spawn-shards --fault slot-race:10% --truth truth.jsonl
  lab balance --spawn-shards --shard-fault 2:forbidden-origin --shard-fault all:hang:1%
  lab serve --listen 127.0.0.1:3002 & lab balance --shard 127.0.0.1:3002 --slots 100

/health has .shards[i].{{connections,capacity,available}}; /metrics has process_open_fds and more.",
        crate::fault::help(Side::Balancer)))]
    Balance(Balance),

    /// A plain TCP server for `churn`
    #[command(after_help = "\
Examples:
  lab sink --listen 127.0.0.1:9000
  lab sink --listen 127.0.0.1:9000 --mode never-close --json")]
    Sink(Sink),

    /// Short plain TCP connections, as many and as fast as asked, counted exactly
    #[command(after_help = "\
Examples:
  lab churn --to 127.0.0.1:9000 --count 300000
  lab churn --to 127.0.0.1:9000 --count 997 --rate 200/s --end rst:100 --hold 5s --json

Exit code 99 if a connection could not be opened.")]
    Churn(Churn),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on, repeatable; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<SocketAddr>,

    /// More WebSockets than this are answered 503
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) max_connections: u32,

    /// Ping every client so often
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) ping_interval: Option<Duration>,

    /// Close a client whose pong is missing for so long
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "10s")]
    pub(crate) ping_timeout: Duration,

    /// Clients must bring this bearer token, or are answered 401
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// A fault, and how many connections it hits; repeatable
    #[arg(long = "fault", value_name = "NAME[:AMOUNT]", value_parser = FaultSpec::of_server)]
    pub(crate) faults: Vec<FaultSpec>,

    /// The time that slow-response and spin-cpu take
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "3s")]
    pub(crate) fault_delay: Duration,

    /// Append a JSON line for every connection that a fault hits
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,

    /// More upgrades than this in a second are answered 429
    #[arg(long, value_name = "N")]
    pub(crate) rate_limit: Option<u32>,

    #[command(flatten)]
    pub(crate) accepting: Accepting,

    /// Stop after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Say where it listens, and the totals at the end, as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Accepting, badly")]
pub(crate) struct Accepting {
    /// Length of the accept queue; the kernel caps it at net.core.somaxconn
    #[arg(long, value_name = "N")]
    pub(crate) backlog: Option<u32>,

    /// Listen only so long after the start
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) bind_after: Option<Duration>,

    /// Pause before each accept
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) accept_delay: Option<Duration>,

    /// Accept nothing from then to then, counted from the start
    #[arg(long, value_name = "FROM-UNTIL")]
    pub(crate) accept_stall: Option<Window>,

    /// Have no more descriptors than this, so that accepting fails
    #[arg(long, value_name = "N")]
    pub(crate) max_fds: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Where to connect
    #[arg(long, env = "WS_URL", value_name = "ws://…")]
    pub(crate) url: String,

    /// How many connections
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "N", default_value_t = 100)]
    pub(crate) connections: u64,

    /// How fast they start: 100/s, or all within 10s
    #[arg(long, default_value = "100/s")]
    pub(crate) ramp: Ramp,

    /// How long they stay after the ramp (a bare number is ms)
    #[arg(long, env = "TEST_DURATION", value_parser = duration_or_ms, default_value = "60s")]
    pub(crate) hold: Duration,

    /// How fast they leave after the hold; all at once, many servers report clients that are gone
    #[arg(long, value_name = "RAMP", default_value = "1000/s")]
    pub(crate) ramp_down: Ramp,

    /// Send a message so often, each connection (a bare number is ms)
    #[arg(long, env = "MESSAGE_FREQUENCY", value_parser = duration_or_ms, value_name = "DURATION")]
    pub(crate) message_interval: Option<Duration>,

    /// Send a ping so often, each connection
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) heartbeat: Option<Duration>,

    /// Bearer token for the Authorization header
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// So many end otherwise: HOW is close-frame, fin, rst or silent; AMOUNT is 45 or 4.5%
    #[arg(long = "end", value_name = "HOW[:AMOUNT]")]
    pub(crate) ends: Vec<EndSpec>,

    /// When they end, from the end of the ramp
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "5s")]
    pub(crate) end_at: Duration,

    /// Connect from these addresses in turn; without it, 127.0.0.2 and up beyond 20,000
    /// connections to loopback
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,

    /// Give up connecting after so long
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) connect_timeout: Duration,

    /// Give up waiting for the answer to the upgrade after so long
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) handshake_timeout: Duration,

    /// Write one JSON line per connection
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Exit 99 if fewer are upgraded
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_success: Option<f64>,

    /// The summary as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// Address to listen on; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3005")]
    pub(crate) listen: SocketAddr,

    /// A shard, repeatable [default: 127.0.0.1:3002, 3003 and 3004]
    #[arg(long = "shard", value_name = "ADDRESS")]
    pub(crate) shards: Vec<SocketAddr>,

    /// Connections that each shard may get
    #[arg(long, value_name = "N", default_value_t = 6000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: u32,

    /// How a shard is chosen among those with free slots
    #[arg(long, value_enum, default_value_t = Policy::RoundRobin)]
    pub(crate) policy: Policy,

    /// Processes that share the port and the slots; each needs two descriptors a client
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) workers: u16,

    /// Answer 504 if a shard has not answered within
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "10s")]
    pub(crate) upstream_timeout: Duration,

    /// Connect to shards from these local ports only, so that they run out; they must lie within
    /// net.ipv4.ip_local_port_range (Linux 6.3)
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range)]
    pub(crate) upstream_ports: Option<(u16, u16)>,

    /// Have no more descriptors than this in each process
    #[arg(long, value_name = "N")]
    pub(crate) max_fds: Option<u64>,

    /// Start `lab serve` at each shard's address
    #[arg(long)]
    pub(crate) spawn_shards: bool,

    /// A fault of spawned shards: N is the shard's number from 1, or all; repeatable
    #[arg(long = "shard-fault", value_name = "N:NAME[:AMOUNT]", value_parser = ShardFault::parse, requires = "spawn_shards")]
    pub(crate) shard_faults: Vec<ShardFault>,

    /// A fault, and how many connections it hits; repeatable
    #[arg(long = "fault", value_name = "NAME[:AMOUNT]", value_parser = FaultSpec::of_balancer)]
    pub(crate) faults: Vec<FaultSpec>,

    /// Append a JSON line for every connection that a fault hits, here or at a spawned shard
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,

    /// Stop after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Say where it listens, and the totals at the end, as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// What the supervisor tells one of its processes
    #[arg(long, hide = true)]
    pub(crate) worker: Option<Role>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Which scenario
    #[arg(value_parser = scenario::find)]
    pub(crate) scenario: &'static Scenario,

    /// Where truth, capture and reports go: a new or empty directory, or an earlier run's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,

    /// Shorten holds and intervals by this factor; rates stay
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = time_scale)]
    pub(crate) time_scale: f64,

    /// Run it without its faults: nothing should be found
    #[arg(long)]
    pub(crate) fixed: bool,

    /// What was done and found, as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Sink {
    /// Address to listen on, repeatable; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(crate) listen: Vec<SocketAddr>,

    /// What to do with a connection
    #[arg(long, value_enum, default_value_t = SinkMode::Hold)]
    pub(crate) mode: SinkMode,

    /// Stop after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Say where it listens, and the totals at the end, as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    /// Where to connect, repeatable: taken in turn
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) to: Vec<SocketAddr>,

    /// How many connections in all
    #[arg(long, value_name = "N")]
    pub(crate) count: u64,

    /// How fast they start: 500/s, or all within 10s; without it, as fast as they go
    #[arg(long)]
    pub(crate) rate: Option<Ramp>,

    /// How long each stays open
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub(crate) hold: Duration,

    /// So many end otherwise than by a FIN: HOW is rst, or peer (the server closes first);
    /// AMOUNT is 45 or 4.5%
    #[arg(long = "end", value_name = "HOW[:AMOUNT]", value_parser = churn_end)]
    pub(crate) ends: Vec<(ChurnEnd, Amount)>,

    /// Connect from these addresses in turn; without it, 127.0.0.2 and up beyond 20,000
    /// connections to loopback
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,

    /// Threads that connect
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,

    /// The totals as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

impl From<Serve> for server::Options {
    fn from(args: Serve) -> Self {
        server::Options {
            listen: args.listen,
            max_connections: args.max_connections.into(),
            ping_interval: args.ping_interval,
            ping_timeout: args.ping_timeout,
            token: args.token,
            faults: args.faults,
            truth: args.truth,
            fault_delay: args.fault_delay,
            rate_limit: args.rate_limit,
            accepting: server::Accepting {
                backlog: args.accepting.backlog,
                bind_after: args.accepting.bind_after,
                delay: args.accepting.accept_delay,
                stall: args.accepting.accept_stall,
                max_fds: args.accepting.max_fds,
            },
        }
    }
}

impl From<Load> for client::Options {
    fn from(args: Load) -> Self {
        client::Options {
            url: args.url,
            connections: args.connections,
            ramp: args.ramp,
            hold: args.hold,
            ramp_down: args.ramp_down,
            message_interval: args.message_interval,
            heartbeat: args.heartbeat,
            token: args.token,
            ends: args.ends,
            end_at: args.end_at,
            sources: args.sources,
            connect_timeout: args.connect_timeout,
            handshake_timeout: args.handshake_timeout,
            output: args.output,
        }
    }
}

impl From<Churn> for churn::Options {
    fn from(args: Churn) -> Self {
        churn::Options {
            to: args.to,
            count: args.count,
            rate: args.rate,
            hold: args.hold,
            ends: args.ends,
            sources: args.sources,
            threads: args.threads,
        }
    }
}

impl From<Balance> for balancer::Options {
    fn from(args: Balance) -> Self {
        let shards = if args.shards.is_empty() {
            [3002, 3003, 3004].map(|port| ([127, 0, 0, 1], port).into()).to_vec()
        } else {
            args.shards
        };
        balancer::Options {
            listen: args.listen,
            shards,
            slots: args.slots.into(),
            policy: args.policy,
            workers: args.workers,
            upstream_timeout: args.upstream_timeout,
            upstream_ports: args.upstream_ports,
            max_fds: args.max_fds,
            spawn_shards: args.spawn_shards,
            shard_faults: args.shard_faults,
            faults: args.faults,
            truth: args.truth,
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    text.split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
        .filter(|(first, last)| 0 < *first && first <= last)
        .ok_or_else(|| {
            format!("`{text}` is no port range: expected FIRST-LAST such as 40000-40099")
        })
}

impl From<Run> for scenario::Options {
    fn from(args: Run) -> Self {
        scenario::Options {
            scenario: args.scenario,
            output: args.output,
            time_scale: args.time_scale,
            fixed: args.fixed,
            json: args.json,
        }
    }
}

fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err(format!("`{text}` is no time scale: expected a number such as 0.1")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(format!("`{text}` is no percentage: expected a number from 0 to 100")),
    }
}

fn churn_end(text: &str) -> Result<(ChurnEnd, Amount), String> {
    let (name, amount) = name_and_amount(text)?;
    let end = match name {
        "fin" => ChurnEnd::Fin,
        "rst" => ChurnEnd::Rst,
        "peer" => ChurnEnd::Peer,
        _ => return Err(format!("`{name}` is no end: expected fin, rst or peer, as in rst:45")),
    };
    Ok((end, amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
