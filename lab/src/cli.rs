//! The command line: one place for every flag and its help.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::churn::{self, ChurnEnd};
use crate::client::{self, EndSpec};
use crate::fault::FaultSpec;
use crate::scenario::{self, Scenario};
use crate::server;
use crate::sink::SinkMode;
use crate::units::{Amount, Ramp, duration, duration_or_ms, name_and_amount};

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
    #[command(after_help = crate::fault::help(), after_long_help = format!("{}
Examples:
  lab serve
  lab serve --listen 127.0.0.1:0 --listen [::1]:0 --json
  lab serve --fault app-leak-on-rst:45 --truth truth.jsonl
  lab serve --ping-interval 5s --ping-timeout 5s --fault app-leak-on-timeout:50%

Served beside the WebSockets:
  /health       .checks.capacity.current is what the server believes; goroutines are its tasks
  /metrics      Prometheus: process_open_fds, process_resident_memory_bytes, lab_tasks, …
  /connections  the server's own table: .connections[].peer", crate::fault::help()))]
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
    #[arg(long = "fault", value_name = "NAME[:AMOUNT]")]
    pub(crate) faults: Vec<FaultSpec>,

    /// Append a JSON line for every connection that a fault hits
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,

    /// Stop after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Say where it listens, and the totals at the end, as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
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
