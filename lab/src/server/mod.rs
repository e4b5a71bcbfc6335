//! A real WebSocket server with a `/health` of its own, and faults on request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::error::LabError;
use crate::fault::{FaultSpec, Faults};
use crate::process::{self, CpuMeter};
use crate::truth::{Leg, TruthLog};
use crate::units::Window;

pub(crate) mod http;
pub(crate) mod manager;
mod registry;
pub(crate) mod token;
pub(crate) mod websocket;

use http::{Answers, Next, lock};
use manager::{Managers, Policy, Visit};
use registry::Registry;

/// What `lab serve` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) max_connections: i64,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) token: Option<String>,
    /// Clients must bring a token signed with this, whose `sub` is then the user.
    pub(crate) jwt_secret: Option<String>,
    /// Keep a manager for every connection, with these bugs.
    pub(crate) managers: Option<Vec<&'static Policy>>,
    pub(crate) faults: Vec<FaultSpec>,
    pub(crate) truth: Option<PathBuf>,
    /// For the faults that take time.
    pub(crate) fault_delay: Duration,
    /// Upgrades per second; more are answered 429.
    pub(crate) rate_limit: Option<u32>,
    /// While so many tasks run, upgrades are answered 503.
    pub(crate) task_guard: Option<i64>,
    pub(crate) accepting: Accepting,
}

/// How the server listens and accepts; by default at once and as fast as it can.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accepting {
    /// Accept queue of the listener; the kernel caps it at `net.core.somaxconn`.
    pub(crate) backlog: Option<u32>,
    /// Listen so long after the start.
    pub(crate) bind_after: Option<Duration>,
    /// Pause before each accept.
    pub(crate) delay: Option<Duration>,
    /// Accept nothing in this time.
    pub(crate) stall: Option<Window>,
    /// Let this process have no more descriptors, once it listens.
    pub(crate) max_fds: Option<u64>,
}

#[derive(Debug, Default)]
struct Totals {
    accepted: AtomicU64,
    upgraded: AtomicU64,
    messages: AtomicU64,
}

/// One running server; its connections share it.
#[derive(Debug)]
pub(crate) struct Server {
    options: Options,
    faults: Faults,
    registry: Registry,
    managers: Option<Managers>,
    totals: Totals,
    tasks: AtomicI64,
    /// No more tasks than descriptors.
    max_tasks: u64,
    memory_limit_bytes: u64,
    /// Hundredths of a percent of one core over the last second.
    cpu_centi_percent: AtomicU64,
    /// Upgrades in the current second, and when that began.
    admitted: Mutex<(Instant, u32)>,
    /// When the first connection was accepted.
    first_accept: OnceLock<Instant>,
    stop: watch::Sender<()>,
}

const BACKLOG: u32 = 4096;

/// Listens, says where, and serves until `stopped` resolves.
///
/// Standard output gets one JSON line once every address listens, and one with totals at the end,
/// if `json`; else both go to standard error as text.
pub(crate) async fn run(
    options: Options,
    json: bool,
    stopped: impl Future<Output = Option<i32>>,
) -> anyhow::Result<()> {
    process::raise_fd_limit();
    let backlog = options.accepting.backlog.unwrap_or(BACKLOG);
    let at = options.listen.iter();
    let reserved: Vec<_> = at.map(|&at| reserve(at, false)).collect::<Result<_, _>>()?;
    if let Some(wait) = options.accepting.bind_after {
        announce_reserved(&reserved, json, wait);
        tokio::time::sleep(wait).await;
    }
    let listeners: Vec<_> = reserved
        .into_iter()
        .map(|socket| start_listening(socket, backlog))
        .collect::<Result<_, _>>()?;
    if let Some(max) = options.accepting.max_fds {
        process::lower_fd_limit(max)?;
    }
    let faults = Faults::arm(&options.faults, options.truth.as_deref())?;
    let truth = options.truth.as_deref();
    let managers = match &options.managers {
        Some(bugs) => Some(Managers::new(bugs, truth.map(TruthLog::append_to).transpose()?)),
        None => None,
    };
    let server = Arc::new(Server {
        options,
        managers,
        faults,
        registry: Registry::default(),
        totals: Totals::default(),
        tasks: AtomicI64::new(0),
        max_tasks: process::max_fds(),
        memory_limit_bytes: process::memory_limit_bytes(),
        cpu_centi_percent: AtomicU64::new(0),
        admitted: Mutex::new((Instant::now(), 0)),
        first_accept: OnceLock::new(),
        stop: watch::Sender::new(()),
    });

    announce(&listeners, json, |address| {
        format!("listening on ws://{address} (also http://{address}/health)")
    });
    tokio::spawn(measure_cpu(Arc::clone(&server)));
    // The first failure that ends the server: a truth that cannot be written.
    let (fail, mut failed) = tokio::sync::mpsc::channel(1);
    for listener in listeners {
        tokio::spawn(accept(Arc::clone(&server), listener, fail.clone()));
    }
    let result = tokio::select! {
        signal = stopped => match signal {
            Some(signal) => Err(LabError::Signal(signal).into()),
            None => Ok(()),
        },
        Some(error) = failed.recv() => Err(error),
    };
    server.shut_down().await;
    server.print_totals(json);
    result
}

impl Server {
    fn cpu_percent(&self) -> f64 {
        self.cpu_centi_percent.load(Ordering::Relaxed) as f64 / 100.0
    }

    /// Whether the rate limit has room for one more upgrade in this second.
    fn admits_now(&self) -> bool {
        let Some(limit) = self.options.rate_limit else { return true };
        let mut admitted = lock(&self.admitted);
        if admitted.0.elapsed() >= Duration::from_secs(1) {
            *admitted = (Instant::now(), 0);
        }
        let admits = admitted.1 < limit;
        admitted.1 += u32::from(admits);
        admits
    }

    /// Whether there are too many tasks for one more upgrade; its own is among them.
    fn guards_tasks(&self) -> bool {
        let tasks = self.tasks.load(Ordering::Relaxed);
        self.options.task_guard.is_some_and(|most| tasks > most)
    }

    /// Waits until the next connection may be accepted.
    async fn may_accept(&self) {
        let accepting = &self.options.accepting;
        if let Some(delay) = accepting.delay {
            tokio::time::sleep(delay).await;
        }
        let since_first = self.first_accept.get().map_or(Duration::ZERO, Instant::elapsed);
        if let Some(stall) = accepting.stall.filter(|stall| stall.contains(since_first)) {
            tokio::time::sleep(stall.until.saturating_sub(since_first)).await;
        }
    }

    /// Sends close frames, and waits a little for the clients to go.
    async fn shut_down(&self) {
        self.stop.send_replace(());
        for _ in 0..20 {
            if self.tasks.load(Ordering::Relaxed) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn print_totals(&self, json: bool) {
        let accepted = self.totals.accepted.load(Ordering::Relaxed);
        let upgraded = self.totals.upgraded.load(Ordering::Relaxed);
        let messages = self.totals.messages.load(Ordering::Relaxed);
        let reported = self.registry.count();
        let faults: serde_json::Map<_, _> =
            self.faults.hits().map(|(name, hits)| (name.to_owned(), hits.into())).collect();
        if json {
            println!(
                "{}",
                json!({
                    "schema_version": 1,
                    "accepted": accepted,
                    "upgraded": upgraded,
                    "messages_received": messages,
                    "reported": reported,
                    "fault_hits": faults,
                })
            );
        } else {
            eprintln!(
                "accepted {accepted}, upgraded {upgraded}, {messages} messages; \
                 {reported} still reported at the end"
            );
            for (fault, hits) in faults {
                eprintln!("fault {fault}: {hits} connections hit");
            }
        }
    }
}

/// Says where it will listen. Until then a SYN is answered by RST, as if nothing were bound.
fn announce_reserved(reserved: &[TcpSocket], json: bool, wait: Duration) {
    let addresses: Vec<_> = reserved.iter().filter_map(|s| s.local_addr().ok()).collect();
    if json {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        println!("{}", json!({ "schema_version": 1, "reserved": addresses, "wait_ms": wait_ms }));
    } else {
        for address in addresses {
            eprintln!("listening on {address} in {}", humantime::format_duration(wait));
        }
    }
}

/// Says where a server listens, once it does.
pub(crate) fn announce(listeners: &[TcpListener], json: bool, text: impl Fn(SocketAddr) -> String) {
    let addresses: Vec<_> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    if json {
        println!("{}", json!({ "schema_version": 1, "listening": addresses }));
    } else {
        for address in addresses {
            eprintln!("{}", text(address));
        }
    }
}

/// Out of descriptors, or the peer has gone already: neither ends a server, and without a pause the
/// first would spin.
pub(crate) async fn accept_failed(error: &std::io::Error) {
    eprintln!("accept failed: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// With `shared`, other processes may listen at the same address (`SO_REUSEPORT`).
pub(crate) fn listen(
    address: SocketAddr,
    backlog: u32,
    shared: bool,
) -> anyhow::Result<TcpListener> {
    start_listening(reserve(address, shared)?, backlog)
}

fn start_listening(socket: TcpSocket, backlog: u32) -> anyhow::Result<TcpListener> {
    socket.listen(backlog).map_err(|error| LabError::usage(format!("cannot listen: {error}")))
}

/// Binds, without listening.
fn reserve(address: SocketAddr, shared: bool) -> anyhow::Result<TcpSocket> {
    let bind = || {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bind().map_err(|error: std::io::Error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; choose another port, or 0 for a free one",
            std::io::ErrorKind::PermissionDenied => "; choose a port above 1023, or run as root",
            std::io::ErrorKind::AddrNotAvailable => "; choose an address that this host has",
            _ => "",
        };
        LabError::usage(format!("cannot listen on {address}: {error}{advice}"))
    })
}

async fn measure_cpu(server: Arc<Server>) {
    let mut meter = CpuMeter::start();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let percent = meter.percent_since_last();
        server.cpu_centi_percent.store((percent * 100.0).round() as u64, Ordering::Relaxed);
    }
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    fail: tokio::sync::mpsc::Sender<anyhow::Error>,
) {
    loop {
        server.may_accept().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                accept_failed(&error).await;
                continue;
            }
        };
        server.first_accept.get_or_init(Instant::now);
        server.totals.accepted.fetch_add(1, Ordering::Relaxed);
        server.tasks.fetch_add(1, Ordering::Relaxed);
        let server = Arc::clone(&server);
        let fail = fail.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(&server, stream, peer).await {
                let _ = fail.try_send(error);
            }
            server.tasks.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One TCP connection: HTTP until it upgrades or ends. Fails only if the truth cannot be written.
async fn connection(server: &Server, stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
    // A connection that died before it was accepted has no local address to speak of.
    let Ok(local) = stream.local_addr() else { return Ok(()) };
    let answers = Answers {
        server,
        leg: Mutex::new(Leg { remote: peer, local, client: None }),
        next: Mutex::default(),
    };
    let mut stop = server.stop.subscribe();
    let (mut stream, read) = tokio::select! {
        left = crate::http::serve(stream, |request| answers.answer(request)) => left,
        _ = stop.changed() => return Ok(()),
    };
    let next = std::mem::take(&mut *lock(&answers.next));
    let leg = *lock(&answers.leg);
    match next {
        Next::Close => Ok(()),
        Next::Reset => {
            let _ = stream.set_zero_linger();
            Ok(())
        }
        Next::Garbage => {
            let _ = stream.write_all(b"220 lab.example ESMTP\r\n").await;
            Ok(())
        }
        Next::Fail(error) => Err(error),
        Next::WebSocket(visit) => websocket(server, stream, read, &leg, visit).await,
    }
}

async fn websocket(
    server: &Server,
    stream: TcpStream,
    read: bytes::Bytes,
    leg: &Leg,
    visit: Visit,
) -> anyhow::Result<()> {
    server.totals.upgraded.fetch_add(1, Ordering::Relaxed);
    let admission = server.faults.admission(leg)?;
    let id = server.registry.admit(admission, leg.remote, leg.local);

    let managed = async {
        match &server.managers {
            Some(managers) => Some(managers.admit(visit, leg).await),
            None => None,
        }
    };
    // A client need not wait for its manager.
    let (ticket, (ending, stream)) = tokio::join!(managed, websocket::serve(server, stream, read));
    if let (Some(managers), Some(ticket)) = (&server.managers, ticket) {
        managers.leave(ticket)?;
    }

    let Some(id) = id else { return Ok(()) };
    let clean_up = server.faults.clean_up(ending, leg)?;
    if clean_up.close {
        drop(stream);
    } else {
        server.registry.hold(stream);
    }
    server.registry.clean_up(id, clean_up);
    Ok(())
}
