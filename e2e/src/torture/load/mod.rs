//! The load side of the torture run: a process in a namespace and a cgroup of its own, whose threads
//! each open and end connections in ways drawn by lot, one topic per file.
//!
//! ```text
//! go                 ok              the threads work from now on
//! pause              {"topic": [done, failed], …}   once every thread has ended its episode
//! ```

mod endings;
mod fast_open;
mod flood;
mod listeners;
mod mptcp;
mod openings;
mod processes;
mod uring;
mod worker;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

pub use processes::{hold, orphan};
pub(in crate::torture) use worker::PORTS;
use worker::{Side, Worker};

/// What a load process is told on its command line.
#[derive(Debug)]
pub struct Options {
    pub seed: u64,
    /// Threads; each has a port of its own, from `first_port` on.
    pub workers: u16,
    pub first_port: u16,
    /// Where it listens: namespace and addresses.
    pub server: (String, Ipv4Addr, Ipv6Addr),
    /// Where it connects from.
    pub client: (String, Ipv4Addr, Ipv6Addr),
}

/// A way to open and end connections.
struct Topic {
    name: &'static str,
    /// Out of the sum of all: how often it is drawn.
    weight: u32,
    run: fn(&mut Worker) -> io::Result<()>,
}

const fn topic(name: &'static str, weight: u32, run: fn(&mut Worker) -> io::Result<()>) -> Topic {
    Topic { name, weight, run }
}

const TOPICS: [Topic; 26] = [
    topic("fin_by_client", 150, endings::fin_by_client),
    topic("fin_by_server", 150, endings::fin_by_server),
    topic("fin_by_both_at_once", 60, endings::fin_by_both_at_once),
    topic("rst_by_linger_0", 120, endings::rst_by_linger_0),
    topic("rst_by_unread_bytes", 60, endings::rst_by_unread_bytes),
    topic("half_close", 50, endings::half_close),
    topic("held", 40, endings::held),
    topic("time_out_unanswered", 1, endings::time_out_unanswered),
    topic("refused", 30, openings::refused),
    topic("syn_sent_then_closed", 6, openings::syn_sent_then_closed),
    topic("connect_again_on_one_socket", 30, openings::connect_again_on_one_socket),
    topic("simultaneous_open_and_close", 30, openings::simultaneous_open_and_close),
    topic("time_wait_reused", 30, openings::time_wait_reused),
    topic("bound_before_connect", 20, openings::bound_before_connect),
    topic("fast_open", 30, fast_open::fast_open),
    topic("listener_closed_with_full_queue", 10, listeners::closed_with_full_queue),
    topic("reset_in_the_accept_queue", 20, listeners::reset_in_the_accept_queue),
    topic("reuse_port_group", 6, listeners::reuse_port_group),
    topic("more_than_the_queue_takes", 1, listeners::more_than_the_queue_takes),
    topic("fork_and_inherit", 4, processes::fork_and_inherit),
    topic("descriptor_in_flight", 10, processes::descriptor_in_flight),
    topic("outlives_process_and_cgroup", 2, processes::outlives_process_and_cgroup),
    topic("duplicated_descriptor", 20, processes::duplicated_descriptor),
    topic("syn_flood", 1, flood::syn_flood),
    topic("mptcp", 10, mptcp::mptcp),
    topic("io_uring_accept", 10, uring::accept),
];

/// Episodes by topic: done, and failed.
type Books = BTreeMap<&'static str, (u64, u64)>;

/// What the threads and the commands share.
#[derive(Default)]
struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    working: bool,
    busy: usize,
    books: Books,
}

/// Runs until standard input ends.
///
/// # Errors
/// Where the namespaces can't be entered, or a listener can't be made.
pub fn run(options: &Options) -> io::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: most, maximum: most },
    )?;
    let side = |(netns, v4, v6): &(String, Ipv4Addr, Ipv6Addr)| -> io::Result<Arc<Side>> {
        Ok(Arc::new(Side { netns: File::open(netns)?, v4: *v4, v6: *v6 }))
    };
    let (server, client) = (side(&options.server)?, side(&options.client)?);
    let pace = Arc::new(Pace::default());
    for number in 0..options.workers {
        let (server, client) = (Arc::clone(&server), Arc::clone(&client));
        let (seed, port) = (options.seed + u64::from(number), options.first_port + number);
        let pace = Arc::clone(&pace);
        thread::Builder::new().name(format!("port {port}")).spawn(move || {
            match Worker::new(seed, port, server, client) {
                Ok(mut worker) => work(&mut worker, &pace),
                Err(error) => eprintln!("port {port}: {error}"),
            }
        })?;
    }
    let mut stdout = io::stdout();
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "go" => {
                pace.state.lock().unwrap_or_else(PoisonError::into_inner).working = true;
                pace.changed.notify_all();
                writeln!(stdout, "ok")?;
            }
            "pause" => writeln!(stdout, "{}", serde_json::json!(pause(&pace)))?,
            other => writeln!(stdout, "no such command: {other}")?,
        }
    }
    Ok(())
}

/// Returns once every thread has ended its episode.
fn pause(pace: &Pace) -> Books {
    let mut state = pace.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.working = false;
    while state.busy > 0 {
        state = pace.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.books.clone()
}

fn work(worker: &mut Worker, pace: &Pace) {
    let sum: u32 = TOPICS.iter().map(|topic| topic.weight).sum();
    loop {
        {
            let mut state = pace.state.lock().unwrap_or_else(PoisonError::into_inner);
            while !state.working {
                state = pace.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.busy += 1;
        }
        let mut drawn = worker.rng.u32(0..sum);
        let topic = TOPICS.iter().find(|topic| {
            let hit = drawn < topic.weight;
            drawn = drawn.saturating_sub(topic.weight);
            hit
        });
        let Some(topic) = topic else { continue };
        let result = (topic.run)(worker);
        if let Err(error) = &result
            && std::env::var_os("TORTURE_ERRORS").is_some()
        {
            eprintln!("{}: {error}", topic.name);
        }
        let mut state = pace.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, failed) = state.books.entry(topic.name).or_default();
        *if result.is_ok() { done } else { failed } += 1;
        state.busy -= 1;
        if state.busy == 0 {
            pace.changed.notify_all();
        }
    }
}
