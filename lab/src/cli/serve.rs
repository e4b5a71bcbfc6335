//! `lab serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::fault::FaultSpec;
use crate::server;
use crate::server::manager::{self, Policy};
use crate::units::{Window, duration};

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

    /// Clients must bring a JWT signed with this (HS256), or are answered 401; see `lab token`
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub(crate) jwt_secret: Option<String>,

    /// Keep a manager for every connection, at most 20 a user (by token, or ?user=)
    #[arg(long)]
    pub(crate) managers: bool,

    /// A bug of the managers, which strikes the user of the same name; repeatable
    #[arg(long = "manager-bug", value_name = "NAME", value_parser = manager::bug, requires = "managers")]
    pub(crate) manager_bugs: Vec<&'static Policy>,

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

    /// Upgrades are answered 503 while so many tasks run, as by a guard against overload; each
    /// connection is a task
    #[arg(long, value_name = "N")]
    pub(crate) task_guard: Option<u32>,

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

    /// Accept nothing from then to then, counted from the first connection
    #[arg(long, value_name = "FROM-UNTIL")]
    pub(crate) accept_stall: Option<Window>,

    /// Have no more descriptors than this, so that accepting fails
    #[arg(long, value_name = "N")]
    pub(crate) max_fds: Option<u64>,
}

impl From<Serve> for server::Options {
    fn from(args: Serve) -> Self {
        server::Options {
            listen: args.listen,
            max_connections: args.max_connections.into(),
            ping_interval: args.ping_interval,
            ping_timeout: args.ping_timeout,
            token: args.token,
            jwt_secret: args.jwt_secret,
            managers: args.managers.then_some(args.manager_bugs),
            faults: args.faults,
            truth: args.truth,
            fault_delay: args.fault_delay,
            rate_limit: args.rate_limit,
            task_guard: args.task_guard.map(i64::from),
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
