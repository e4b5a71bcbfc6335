//! Short plain TCP connections on blocking sockets: the fastest way to make many of them, and to
//! know exactly how many.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::error::LabError;
use crate::units::{Amount, Ramp};
use crate::{net, process};

/// How a short connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChurnEnd {
    /// The client closes first.
    Fin,
    /// The client resets.
    Rst,
    /// The client waits for the server to close.
    Peer,
}

/// What `lab churn` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) to: Vec<SocketAddr>,
    pub(crate) count: u64,
    pub(crate) rate: Option<Ramp>,
    pub(crate) hold: Duration,
    pub(crate) ends: Vec<(ChurnEnd, Amount)>,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) threads: u16,
}

/// Exact totals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    schema_version: u32,
    /// `connect` was called.
    pub(crate) opened: u64,
    pub(crate) established: u64,
    pub(crate) ended_fin: u64,
    pub(crate) ended_rst: u64,
    pub(crate) ended_peer: u64,
    /// The peer reset, or did not close in time.
    pub(crate) ended_error: u64,
    /// Connections that did not come about, by error.
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) duration_s: f64,
}

/// How long the server may take to close.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens and ends the connections; blocks until the last is over.
pub(crate) fn run(options: &Options) -> anyhow::Result<Totals> {
    process::raise_fd_limit();
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let sources: Vec<_> =
        options.to.iter().map(|&to| net::sources(&options.sources, to, options.count)).collect();
    let threads = u64::from(options.threads);
    let mut totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| Worker::new(options, &sources, &next, began).run()))
            .collect();
        workers.into_iter().fold(Totals::default(), |mut sum, worker| {
            // A panic of a worker is a bug, and goes on as one.
            sum.add(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            sum
        })
    });
    totals.schema_version = 1;
    totals.duration_s = began.elapsed().as_secs_f64();
    Ok(totals)
}

/// Prints the totals; crossing the threshold "every connection was opened" is an error.
pub(crate) fn conclude(totals: &Totals, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(totals)?);
    } else {
        println!(
            "opened {} in {:.1} s, established {}; ended by fin {}, rst {}, peer {}, error {}",
            totals.opened,
            totals.duration_s,
            totals.established,
            totals.ended_fin,
            totals.ended_rst,
            totals.ended_peer,
            totals.ended_error
        );
    }
    if totals.failed.is_empty() {
        return Ok(());
    }
    let failures: Vec<_> = totals.failed.iter().map(|(why, n)| format!("{n} × {why}")).collect();
    Err(LabError::Threshold(format!("not established: {}", failures.join("; "))).into())
}

struct Worker<'a> {
    options: &'a Options,
    sources: &'a [Vec<IpAddr>],
    next: &'a AtomicU64,
    began: Instant,
    totals: Totals,
    /// Open connections in order of their end, with how they end.
    open: VecDeque<(Instant, TcpStream, ChurnEnd)>,
}

impl<'a> Worker<'a> {
    fn new(
        options: &'a Options,
        sources: &'a [Vec<IpAddr>],
        next: &'a AtomicU64,
        began: Instant,
    ) -> Self {
        Worker { options, sources, next, began, totals: Totals::default(), open: VecDeque::new() }
    }

    fn run(mut self) -> Totals {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.options.count {
                break;
            }
            if let Some(rate) = self.options.rate {
                self.wait_until(self.began + rate.offset(index, self.options.count));
            }
            self.end_due();
            self.totals.opened += 1;
            match self.connect(index) {
                Ok(stream) => {
                    self.totals.established += 1;
                    let due = Instant::now() + self.options.hold;
                    self.open.push_back((due, stream, self.end_of(index)));
                }
                Err(error) => {
                    *self.totals.failed.entry(error.to_string()).or_default() += 1;
                }
            }
            self.end_due();
        }
        while let Some((due, ..)) = self.open.front() {
            self.wait_until(*due);
        }
        self.totals
    }

    /// Sleeps until `when`, ending on the way what is due.
    fn wait_until(&mut self, when: Instant) {
        loop {
            self.end_due();
            let now = Instant::now();
            if now >= when {
                return;
            }
            let next = self.open.front().map_or(when, |(due, ..)| (*due).min(when));
            std::thread::sleep(next.saturating_duration_since(now));
        }
    }

    fn end_due(&mut self) {
        let now = Instant::now();
        while self.open.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, stream, end)) = self.open.pop_front() {
                self.end(stream, end);
            }
        }
    }

    fn connect(&self, index: u64) -> io::Result<TcpStream> {
        let target = index % self.options.to.len() as u64;
        let to = self.options.to[target as usize];
        let sources = &self.sources[target as usize];
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if !sources.is_empty() {
            let source = sources[(index % sources.len() as u64) as usize];
            net::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&to.into())?;
        Ok(socket.into())
    }

    fn end_of(&self, index: u64) -> ChurnEnd {
        // Amounts are laid one after the other, so that their counts are exact.
        let mut from = 0;
        for &(end, amount) in &self.options.ends {
            let until = from + amount.of(self.options.count);
            if (from..until).contains(&index) {
                return end;
            }
            from = until;
        }
        ChurnEnd::Fin
    }

    fn end(&mut self, stream: TcpStream, end: ChurnEnd) {
        match end {
            ChurnEnd::Fin => self.totals.ended_fin += 1,
            ChurnEnd::Rst => match SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
                Ok(()) => self.totals.ended_rst += 1,
                Err(_) => self.totals.ended_error += 1,
            },
            ChurnEnd::Peer => match read_to_end(&stream) {
                Ok(()) => self.totals.ended_peer += 1,
                Err(_) => self.totals.ended_error += 1,
            },
        }
        drop(stream);
    }
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.opened += other.opened;
        self.established += other.established;
        self.ended_fin += other.ended_fin;
        self.ended_rst += other.ended_rst;
        self.ended_peer += other.ended_peer;
        self.ended_error += other.ended_error;
        for (why, count) in other.failed {
            *self.failed.entry(why).or_default() += count;
        }
    }
}
