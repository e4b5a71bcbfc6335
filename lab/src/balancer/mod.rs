//! A balancer in front of shards, each with so many slots. It runs in several processes, since it
//! needs two descriptors a client: they share the port by `SO_REUSEPORT` and the slots by a table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::process::Child;

use crate::children::{self, command, interrupt, line_with, spawn};
use crate::error::LabError;
use crate::fault::{FaultSpec, Faults};
use crate::process;

mod health;
mod proxy;
mod silent;
mod table;
pub(crate) mod worker;

use silent::SilentAddress;
use table::{Shape, Table, Total};

/// How a shard is chosen among those with free slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// In turn
    RoundRobin,
    /// The one with the fewest; it pours everything into a shard that refuses
    LeastConnections,
}

/// `N:NAME[:AMOUNT]`: a fault of one spawned shard, or of all.
#[derive(Clone, Debug)]
pub(crate) struct ShardFault {
    /// From 0; all if none.
    shard: Option<usize>,
    spec: FaultSpec,
}

impl ShardFault {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected N:FAULT with a shard from 1, or all:FAULT");
        let (shard, fault) = text.split_once(':').ok_or_else(expected)?;
        let shard = match shard {
            "all" => None,
            number => Some(
                number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).ok_or_else(expected)?,
            ),
        };
        Ok(ShardFault { shard, spec: FaultSpec::of_server(fault)? })
    }
}

/// What `lab balance` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) shards: Vec<SocketAddr>,
    /// Of each shard.
    pub(crate) slots: i64,
    pub(crate) policy: Policy,
    pub(crate) workers: u16,
    pub(crate) upstream_timeout: Duration,
    pub(crate) upstream_ports: Option<(u16, u16)>,
    pub(crate) max_fds: Option<u64>,
    pub(crate) spawn_shards: bool,
    pub(crate) shard_faults: Vec<ShardFault>,
    /// More arguments of every spawned `lab serve`.
    pub(crate) shard_args: Vec<String>,
    pub(crate) faults: Vec<FaultSpec>,
    pub(crate) truth: Option<PathBuf>,
}

impl Options {
    fn shape(&self) -> Shape {
        Shape { shards: self.shards.len(), workers: self.workers.into(), faults: self.faults.len() }
    }
}

/// What the supervisor tells one of its processes; the rest is the same command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    worker: usize,
    table: PathBuf,
    /// With the port that was found, where 0 was asked for.
    listen: SocketAddr,
    shards: Vec<SocketAddr>,
    /// Where SYNs are answered by RST, and where they are not answered.
    refusing: SocketAddr,
    silent: SocketAddr,
}

impl std::str::FromStr for Role {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

const START: Duration = Duration::from_secs(20);

/// Starts the processes, says where they listen, and waits until `stopped` resolves or one dies.
pub(crate) async fn run(
    options: &Options,
    json: bool,
    stopped: impl Future<Output = Option<i32>>,
) -> anyhow::Result<()> {
    process::raise_fd_limit();
    let (table, memory) = Table::create(options.shape())?;
    // Refuses what the workers would refuse, before there are any.
    Faults::arm(&options.faults, None)?;
    let (reserved, listen) = reserve(options.listen)?;
    // Bound, but not listening.
    let (refuses, refusing) = reserve(([127, 0, 0, 1], 0).into())?;
    let silence = SilentAddress::open()?;
    let silent = silence.address;
    let mut children = Vec::new();
    let mut shards = options.shards.clone();
    if options.spawn_shards {
        for (number, address) in shards.iter_mut().enumerate() {
            let (child, at) = start_shard(options, number, *address).await?;
            *address = at;
            children.push((format!("shard {}", number + 1), child));
        }
    }
    for worker in 0..options.workers.into() {
        let role = Role {
            worker,
            table: Table::path(&memory).into(),
            listen,
            shards: shards.clone(),
            refusing,
            silent,
        };
        children.push((format!("worker {}", worker + 1), start_worker(&role).await?));
    }
    if json {
        let nobody_at = [refusing, silent];
        println!(
            "{}",
            json!({
                "schema_version": 1, "listening": [listen], "shards": shards, "nobody_at": nobody_at
            })
        );
    } else {
        eprintln!("listening on ws://{listen} (also http://{listen}/health)");
        for shard in &shards {
            eprintln!("  shard ws://{shard}, {} slots", options.slots);
        }
    }

    let result = tokio::select! {
        signal = stopped => match signal {
            Some(signal) => Err(LabError::Signal(signal).into()),
            None => Ok(()),
        },
        name = first_to_end(&mut children) => Err(anyhow::anyhow!("{name} ended before its time")),
    };
    // The workers first: clients are told before their shards vanish.
    for (name, child) in children.iter_mut().rev() {
        interrupt(name, child).await?;
    }
    drop((reserved, refuses, silence));
    print_totals(options, &table, json);
    result
}

/// Binds without listening: the port is ours, and connections go to the workers that listen.
fn reserve(address: SocketAddr) -> anyhow::Result<(Socket, SocketAddr)> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket, bound))
    };
    bind().map_err(|error: std::io::Error| {
        LabError::usage(format!(
            "cannot listen on {address}: {error}; choose another address, or port 0 for a free one"
        ))
    })
}

async fn start_shard(
    options: &Options,
    number: usize,
    address: SocketAddr,
) -> anyhow::Result<(Child, SocketAddr)> {
    let mut serve = command(None, &std::env::current_exe()?);
    serve.args(["serve", "--json", "--listen", &address.to_string()]);
    if let Some(truth) = &options.truth {
        serve.arg("--truth").arg(truth);
    }
    for fault in &options.shard_faults {
        if fault.shard.is_none_or(|shard| shard == number) {
            serve.args(["--fault", fault.spec.text()]);
        }
    }
    serve.args(&options.shard_args);
    start(&mut serve, &format!("shard {}", number + 1)).await
}

async fn start_worker(role: &Role) -> anyhow::Result<Child> {
    let mut worker = command(None, &std::env::current_exe()?);
    worker.args(std::env::args_os().skip(1));
    worker.arg("--worker").arg(serde_json::to_string(role)?);
    Ok(start(&mut worker, &format!("worker {}", role.worker + 1)).await?.0)
}

/// Starts a child that says where it listens.
async fn start(
    command: &mut tokio::process::Command,
    name: &str,
) -> anyhow::Result<(Child, SocketAddr)> {
    #[derive(Deserialize)]
    struct Listening {
        #[serde(alias = "reserved")]
        listening: Vec<SocketAddr>,
    }

    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let line = match child.stdout.take() {
        Some(out) => {
            let bound = |line: &str| line.contains("listening") || line.contains("reserved");
            line_with(out, START, false, bound).await
        }
        None => None,
    };
    let listening = line.and_then(|line| serde_json::from_str::<Listening>(&line).ok());
    match listening.and_then(|listening| listening.listening.first().copied()) {
        Some(address) => Ok((child, address)),
        None => Err(children::unexpected(name, interrupt(name, &mut child).await?)),
    }
}

async fn first_to_end(children: &mut [(String, Child)]) -> String {
    let waits = children.iter_mut().map(|(name, child)| {
        Box::pin(async move {
            let _ = child.wait().await;
            name.clone()
        })
    });
    futures_util::future::select_all(waits).await.0
}

fn print_totals(options: &Options, table: &Table, json: bool) {
    let total = |total| table.total(total).load(Ordering::Relaxed);
    let (accepted, upgraded) = (total(Total::Accepted), total(Total::Upgraded));
    let refused = total(Total::Refused);
    let slots: Vec<_> = (0..options.shards.len()).map(|shard| table.slots_in_use(shard)).collect();
    if json {
        println!(
            "{}",
            json!({
                "schema_version": 1,
                "accepted": accepted,
                "upgraded": upgraded,
                "refused": refused,
                "slots_in_use": slots,
            })
        );
    } else {
        eprintln!("accepted {accepted}, upgraded {upgraded}, refused {refused}");
        eprintln!("slots still in use: {slots:?}");
    }
}
