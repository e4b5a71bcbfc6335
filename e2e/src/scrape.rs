//! How long the agent's metrics page takes to come.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::probe::Agent;

/// Beyond this the agent has forgotten who asks.
const PATIENCE: Duration = Duration::from_secs(60);

/// One scrape.
#[derive(Clone, Copy, Debug)]
pub struct Scrape {
    /// From its connection to its last byte.
    took: Duration,
    /// How long meanwhile threads of the agent that answer were ready and had no processor, together.
    waited: Duration,
}

/// Asks the agent once.
///
/// # Panics
/// If the answer is not the page of an agent whose counts are exact.
#[must_use]
pub fn time(agent: &Agent) -> Scrape {
    let waited = run_delay(agent.pid());
    let since = Instant::now();
    let mut stream = TcpStream::connect(Agent::LISTEN).expect("the agent takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the agent reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the agent answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("groundtruth_exact 1\n"), "{answer}");
    Scrape { took: since.elapsed(), waited: run_delay(agent.pid()).saturating_sub(waited) }
}

/// Of the threads that a scrape is answered on, as the kernel keeps it since they began.
fn run_delay(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
    let of = |task: PathBuf| {
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let answers = ["probe", "tokio-rt-worker"].contains(&name.trim());
        let text = std::fs::read_to_string(task.join("schedstat")).ok().filter(|_| answers)?;
        text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
    };
    tasks.flatten().filter_map(|task| of(task.path())).sum()
}

/// What is promised of a scrape, whatever others do to the agent: under 100 ms, but for the time in which
/// other programs have the processors; and with the tests' own load, 19 of 20 also with that.
///
/// # Panics
/// If one was slower.
pub fn assert_quick(mut scrapes: Vec<Scrape>) {
    const QUICK: Duration = Duration::from_millis(100);
    let is_quick = |scrape: &Scrape| scrape.took.saturating_sub(scrape.waited) < QUICK;
    assert!(scrapes.iter().all(is_quick), "{scrapes:#?}");
    scrapes.sort_by_key(|scrape| scrape.took);
    let beyond = scrapes.len() / 20;
    assert!(scrapes[scrapes.len() - 1 - beyond].took < QUICK, "{scrapes:#?}");
}
