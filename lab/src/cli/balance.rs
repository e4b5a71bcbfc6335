//! `lab balance`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::balancer::{self, Policy, Role, ShardFault};
use crate::fault::FaultSpec;
use crate::units::duration;

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

    /// An argument of every spawned shard, such as --shard-arg=--max-connections=40; repeatable
    #[arg(
        long = "shard-arg",
        value_name = "ARGUMENT",
        allow_hyphen_values = true,
        requires = "spawn_shards"
    )]
    pub(crate) shard_args: Vec<String>,

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
            shard_args: args.shard_args,
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
