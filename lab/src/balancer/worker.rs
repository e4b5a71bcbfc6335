//! One of a balancer's processes: accepts, forwards, relays.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::proxy::{Exchange, Next, Slot};
use super::table::{Gauge, Table, Total};
use super::{Options, Role};
use crate::fault::Faults;
use crate::process::{self, CpuMeter};
use crate::server::{accept_failed, listen};
use crate::signal::signalled;
use crate::truth::Leg;

/// What the connections of one process share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) options: Options,
    pub(super) shards: Vec<SocketAddr>,
    pub(super) table: Arc<Table>,
    pub(super) faults: Faults,
    pub(super) refusing: SocketAddr,
    pub(super) silent: SocketAddr,
    tasks: AtomicU64,
}

const BACKLOG: u32 = 4096;

pub(crate) async fn run(role: &Role, options: Options) -> anyhow::Result<()> {
    process::raise_fd_limit();
    let table = Arc::new(Table::open(Path::new(&role.table), options.shape())?);
    let faults =
        Faults::arm_with(&options.faults, options.truth.as_deref(), Arc::clone(&table) as Arc<_>)?;
    let listener = listen(role.listen, BACKLOG, true)?;
    if let Some(max) = options.max_fds {
        process::lower_fd_limit(max)?;
    }
    let worker = Arc::new(Worker {
        options,
        shards: role.shards.clone(),
        table,
        faults,
        refusing: role.refusing,
        silent: role.silent,
        tasks: AtomicU64::new(0),
    });
    println!("{}", json!({ "listening": [role.listen] }));

    let (fail, mut failed) = mpsc::channel(1);
    let measuring = tokio::spawn(measure(Arc::clone(&worker), role.worker));
    let accepting = tokio::spawn(accept(Arc::clone(&worker), listener, fail));
    let result = tokio::select! {
        _ = signalled() => Ok(()),
        Some(error) = failed.recv() => Err(error),
    };
    accepting.abort();
    measuring.abort();
    result
}

async fn measure(worker: Arc<Worker>, index: usize) {
    let mut cpu = CpuMeter::start();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let set = |gauge, value| worker.table.gauge(index, gauge).store(value, Ordering::Relaxed);
        set(Gauge::CpuCentiPercent, (cpu.percent_since_last() * 100.0).round() as u64);
        set(Gauge::ResidentBytes, process::resident_bytes());
        set(Gauge::OpenFds, process::open_fds());
        set(Gauge::Tasks, worker.tasks.load(Ordering::Relaxed));
    }
}

async fn accept(worker: Arc<Worker>, listener: TcpListener, fail: mpsc::Sender<anyhow::Error>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                accept_failed(&error).await;
                continue;
            }
        };
        worker.table.total(Total::Accepted).fetch_add(1, Ordering::Relaxed);
        worker.tasks.fetch_add(1, Ordering::Relaxed);
        let (worker, fail) = (Arc::clone(&worker), fail.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(&worker, stream, peer).await {
                let _ = fail.try_send(error);
            }
            worker.tasks.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One client. Fails only if the truth cannot be written.
async fn connection(worker: &Worker, stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
    let Ok(local) = stream.local_addr() else { return Ok(()) };
    let leg = Leg { remote: peer, local, client: None };
    let exchange = Exchange { worker, leg, next: Mutex::default() };
    let (client, read) = crate::http::serve(stream, |request| exchange.answer(request)).await;
    match exchange.into_next() {
        Next::Close => Ok(()),
        Next::Fail(error) => Err(error),
        Next::Relay { mut upstream, read: upstream_read, slot } => {
            worker.table.total(Total::Upgraded).fetch_add(1, Ordering::Relaxed);
            relay(client, &read, &mut upstream, &upstream_read).await;
            drop(upstream);
            give_back(worker, slot, &leg)
        }
    }
}

/// Copies both ways until both are done, or one fails.
async fn relay(mut client: TcpStream, read: &[u8], upstream: &mut TcpStream, upstream_read: &[u8]) {
    let _ = upstream.set_nodelay(true);
    if upstream.write_all(read).await.is_ok() && client.write_all(upstream_read).await.is_ok() {
        // A reset of either side ends both, as it does with any proxy.
        let _ = copy_bidirectional(&mut client, upstream).await;
    }
}

fn give_back(worker: &Worker, slot: Slot, leg: &Leg) -> anyhow::Result<()> {
    if worker.faults.keeps_slot(leg)? {
        slot.keep();
    }
    Ok(())
}
