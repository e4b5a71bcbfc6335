//! The command line: one place for every command, its flags and its help.

use clap::{Parser, Subcommand};

use crate::fault::Side;

mod balance;
mod churn;
mod generate;
mod load;
mod run;
mod serve;
mod sink;
mod token;

pub(crate) use balance::Balance;
pub(crate) use churn::Churn;
pub(crate) use generate::Generate;
pub(crate) use load::Load;
pub(crate) use run::Run;
pub(crate) use serve::Serve;
pub(crate) use sink::Sink;
pub(crate) use token::Token;

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
{}
Examples:
  lab serve
  lab serve --listen 127.0.0.1:0 --listen [::1]:0 --json
  lab serve --fault app-leak-on-rst:45 --truth truth.jsonl
  lab serve --ping-interval 5s --ping-timeout 5s --fault app-leak-on-timeout:50%

Served beside the WebSockets:
  /health       .checks.capacity.current is what the server believes; goroutines are its tasks
  /metrics      Prometheus: process_open_fds, process_resident_memory_bytes, lab_tasks, …
  /connections  the server's own table: .connections[].peer
  /managers     with --managers: .managers[].peer, and .managers.current in /health",
        crate::fault::help(Side::Server), crate::server::manager::help()))]
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
  silent        stays open, but reads and answers nothing any more

Exits 99 where not a single one is upgraded (--min-success 0 takes that), where fewer than --min-success are, and
where the server died or all were cut off.")]
    Load(Load),

    /// A whole scenario: server, probe, clients, analyzer, and what was found against what was done
    #[command(after_help = crate::scenario::help(), after_long_help = format!("{}
Examples:
  sudo lab run demo -o /tmp/demo
  sudo lab run validate-100 -o /tmp/v100 --time-scale 0.1
  sudo lab run app-leak-rst -o /tmp/leak --fixed --json
  sudo lab run mixed-three -o /tmp/mixed
  sudo lab run tabs -o /tmp/tabs
  sudo lab run smoke-30m -o /tmp/smoke --time-scale 0.02 --fault never-close:20%
  sudo lab run custom -o /tmp/custom --connections 700 --hold 2m --heartbeat 15s
  sudo lab run slot-race -o /tmp/race --fault wrong-path:5%

Written to DIR: truth.jsonl, results.jsonl, capture/, report.html, report.md, report.json and run.json;
attempts.jsonl has outcome and cause of each client's handshake.
Exit code: that of `analyzer report` (99 when phantoms cross the scenario's threshold), 1 when what
was found is not what was done; `demo` and failed handshakes exit 0 exactly when both are equal.", crate::scenario::help()))]
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

    /// A bearer token for `lab load --token` that `lab serve --jwt-secret` takes
    #[command(after_help = "\
Examples:
  lab token --secret s3cret
  lab token --user tabs --secret s3cret --valid 10m
  AUTH_TOKEN=$(lab token --secret s3cret) lab load --url ws://127.0.0.1:8080/")]
    Token(Token),

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

    /// A capture of any size, made up, with client results and the answers that must be found in it
    #[command(after_help = "\
Examples:
  lab generate --connections 100k -o /tmp/made
  lab generate --connections 10M --clients 1M --health 3600 -o /tmp/large
  analyzer report /tmp/large/capture --client /tmp/large/clients.jsonl -o /tmp/report")]
    Generate(Generate),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
