//! What the programs cost, from the kernel's own statistics: how often each ran, and for how long.
//!
//! The kernel keeps them only while somebody asks for them, since taking the time costs about as much
//! as a small program. So both numbers grow only meanwhile, and belong together.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::programs::Program;
use serde::Serialize;

use super::{
    attach::{self, Options, Running},
    hooks::{EMPTY, STATE_CHANGES},
    sys,
};

/// An agent measures itself for this long of each [`EVERY`]: a hundredth of the time, since every run takes half as
/// long again meanwhile.
const SAMPLE: Duration = Duration::from_millis(100);
const EVERY: Duration = Duration::from_secs(10);

/// Runs of all programs on one hook, while statistics were on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HookCost {
    pub hook: String,
    pub runs: u64,
    pub run_time_ns: u64,
}

impl HookCost {
    fn since(self, before: &[Self]) -> Self {
        match before.iter().find(|other| other.hook == self.hook) {
            None => self,
            Some(before) => Self {
                runs: self.runs - before.runs,
                run_time_ns: self.run_time_ns - before.run_time_ns,
                hook: self.hook,
            },
        }
    }

    /// Mean time of one run; 0 if there was none.
    #[must_use]
    pub fn ns_per_run(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.run_time_ns as f64 / self.runs as f64 }
    }
}

/// Per hook, its copies together.
#[must_use]
pub fn of(hooks: &[Arc<Running>]) -> Vec<HookCost> {
    let mut costs: Vec<HookCost> = Vec::new();
    for running in hooks {
        let Ok(info) = running.info() else { continue };
        let hook = running.hook.name();
        if costs.last().is_none_or(|last| last.hook != hook) {
            costs.push(HookCost { hook, ..HookCost::default() });
        }
        if let Some(cost) = costs.last_mut() {
            cost.runs += info.run_cnt;
            cost.run_time_ns += info.run_time_ns;
        }
    }
    costs
}

/// Has the kernel keep its statistics now and then, for an agent to export. Ends, and exports nothing
/// but zeros, where the kernel can't (before 5.8).
pub fn sample_now_and_then() {
    // A thread of its own, not a task: nobody waits for it at the end.
    thread::spawn(|| {
        while let Ok(statistics) = sys::enable_statistics() {
            thread::sleep(SAMPLE);
            drop(statistics);
            thread::sleep(EVERY - SAMPLE);
        }
    });
}

/// What `probe doctor --cost` measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub seconds: f64,
    /// Connections that were made to have something to measure: both ends on this host.
    pub connections: u64,
    pub hooks: Vec<HookCost>,
    /// State changes that all copies of the program together were run for.
    pub state_changes: u64,
    /// A program that does nothing on the same hook: what the kernel's way there costs.
    pub empty_ns_per_run: f64,
}

impl Measured {
    /// Mean time per state change, all copies together.
    #[must_use]
    pub fn ns_per_state_change(&self) -> f64 {
        let time: u64 = self
            .hooks
            .iter()
            .filter(|cost| cost.hook == STATE_CHANGES)
            .map(|cost| cost.run_time_ns)
            .sum();
        time as f64 / self.state_changes.max(1) as f64
    }

    /// Time of all programs for one of the connections, both ends; what else this host does
    /// meanwhile is in it.
    #[must_use]
    pub fn ns_per_connection(&self) -> f64 {
        let time: u64 = self.hooks.iter().map(|cost| cost.run_time_ns).sum();
        time as f64 / self.connections.max(1) as f64
    }
}

/// Loads the programs, makes loopback connections for `duration`, and unloads them.
///
/// # Errors
/// [`super::Unavailable`] where the programs can't be had; else where the kernel keeps no statistics, or
/// loopback takes no connections.
pub fn measure(duration: Duration, counts_only: bool) -> anyhow::Result<Measured> {
    let btf = attach::types()?;
    let (mut attached, _) = attach::attach(&Options { counts_only, ..Options::default() }, &btf)?;
    let Some(Program::BtfTracePoint(empty)) = attached.ebpf.program_mut(EMPTY) else {
        anyhow::bail!("the object file has no program {EMPTY}");
    };
    empty.load("inet_sock_set_state", &btf).context("cannot load a program that does nothing")?;
    empty.attach().context("cannot attach a program that does nothing")?;
    let empty = empty.fd()?.try_clone()?;

    let statistics: OwnedFd = sys::enable_statistics()
        .context("the kernel keeps no statistics of programs (Linux 5.8 and later do)")?;
    let before = of(&attached.hooks);
    let empty_before = sys::program_info(empty.as_fd())?;
    let start = Instant::now();
    let connections = connect_for(duration).context("cannot make connections on loopback")?;
    let seconds = start.elapsed().as_secs_f64();
    let hooks: Vec<HookCost> =
        of(&attached.hooks).into_iter().map(|cost| cost.since(&before)).collect();
    let empty_after = sys::program_info(empty.as_fd())?;
    drop(statistics);
    let state_changes = empty_after.run_cnt - empty_before.run_cnt;
    let empty_ns = empty_after.run_time_ns - empty_before.run_time_ns;
    Ok(Measured {
        seconds,
        connections,
        hooks,
        state_changes,
        empty_ns_per_run: empty_ns as f64 / state_changes.max(1) as f64,
    })
}

/// A request and a response each, one after the other; returns how many.
fn connect_for(duration: Duration) -> std::io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> std::io::Result<()> {
            let mut request = [0; 64];
            loop {
                let (mut stream, _) = listener.accept()?;
                if stream.read(&mut request)? == 0 {
                    return Ok(()); // the client's last
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
                stream.shutdown(Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())?; // the client's end
            }
        });
        let mut made = 0;
        let start = Instant::now();
        let result = loop {
            if start.elapsed() >= duration {
                break Ok(made);
            }
            if let Err(error) = exchange(address) {
                break Err(error);
            }
            made += 1;
        };
        // An empty connection ends the server.
        drop(TcpStream::connect(address));
        match server.join() {
            Ok(served) => result.and_then(|made| served.map(|()| made)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn exchange(address: std::net::SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).map(drop)
}
