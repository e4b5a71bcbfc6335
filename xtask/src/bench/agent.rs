//! The agent with tens of thousands of connections: how fast it answers, and what it holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::crowd::Crowd;
use super::probe::Agent;
use super::process::{output, timed};
use super::row::{Goal, Row};
use super::statistics::Median;
use super::{Context, cpu};

const MIB: f64 = 1024.0 * 1024.0;

/// How many connections there are at first, and then; and in how many cgroups.
struct Size {
    few: usize,
    many: usize,
    cgroups: usize,
}

/// Until then an agent can't know of handshakes that began before it, and asks the kernel at every count.
const YOUNG: Duration = Duration::from_secs(71);
/// Longer than from one round of the keeper to the next, after which what an answer took is given back.
const KEEPER: Duration = Duration::from_secs(25);

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let size = if context.quick {
        Size { few: 500, many: 5000, cgroups: 20 }
    } else {
        Size { few: 500, many: 50_000, cgroups: 200 }
    };
    let mut crowd = Crowd::start(context, size.cgroups)?;
    let agent = Agent::start(context, &[])?;
    if !context.quick {
        thread::sleep(YOUNG);
    }
    let idle = cpu::resident(agent.pid())?;
    crowd.open(context, size.few)?;
    let few_times = repeated(context, || count(&agent))?;
    let few_maps = Maps::of(agent.pid())?;
    crowd.open(context, size.many - size.few)?;
    check(&agent, &crowd, size.many)?;
    if !context.quick {
        thread::sleep(KEEPER);
    }
    let full = cpu::resident(agent.pid())?;
    let many_maps = Maps::of(agent.pid())?;

    let many_times = repeated(context, || count(&agent))?;
    let mut rows =
        vec![against_ss(context, &agent, &size)?, growth(&size, &few_times, &many_times)?];
    rows.push(scrape(context, &agent, &size)?);
    // Both ends of each connection are tracked.
    let tracked = 2.0 * (size.many - size.few) as f64;
    rows.extend(memory(&size, &few_maps, &many_maps, tracked));
    rows.push(
        Row::new("agent, nothing tracked", Goal::AtMost(30.0), "MiB resident", idle as f64 / MIB)
            .limit(
                "8 MiB of it are the ring: 4 MiB of kernel memory, mapped twice in a row so that a record at \
                 its end can be read in one piece. 3.3 MiB are the counters, mapped as well; both are also in \
                 what the kernel maps are charged. The program's own data takes 2.3 MiB; the rest are pages of \
                 its file and of libc.",
            ),
    );
    rows.push(
        Row::new(
            "agent, for each connection that is tracked",
            Goal::AtMost(200.0),
            "B resident",
            full.saturating_sub(idle) as f64 / (2.0 * size.many as f64),
        )
        .detail(format!(
            "{:.1} MiB resident with both ends of {} connections",
            full as f64 / MIB,
            size.many
        ))
        .limit(
            "Kept for good is only what the heads said of a connection that has talked; the rest are copies of an \
             audit or an answer, which are given back at the keeper's next round.",
        ),
    );
    drop(agent);
    rows.push(attach(context, &crowd, &size)?);
    Ok(rows)
}

fn repeated(context: &Context, mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    once()?; // warms up, not counted
    (0..context.rounds()).map(|_| Ok(once()?.as_secs_f64() * 1e3)).collect()
}

fn median(values: &[f64]) -> Result<Median> {
    Median::of(values).context("no rounds")
}

fn count(agent: &Agent) -> Result<Duration> {
    timed(agent.command().arg("count")).map(|(_, took)| took)
}

/// What people count with.
fn ss() -> Result<Duration> {
    let pipe = "ss -Htn state established | wc -l";
    timed(Command::new("sh").args(["-c", pipe])).map(|(_, took)| took)
}

/// A fast answer that is wrong would be none. Under a load that makes the kernel leave out events, a
/// count may take some seconds to be made good.
fn check(agent: &Agent, crowd: &Crowd, expected: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = compare(agent, crowd, expected) {
        if Instant::now() > deadline {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn compare(agent: &Agent, crowd: &Crowd, expected: usize) -> Result<()> {
    let answer: Value = serde_json::from_str(&output(agent.command().args(["count", "--json"]))?)?;
    let ports: Vec<&str> = crowd.ports().collect();
    let counted: i64 = answer["counts"]
        .as_array()
        .context("no counts")?
        .iter()
        .filter(|row| row["role"] == "passive")
        .filter(|row| ports.contains(&row["port"].to_string().as_str()))
        .filter_map(|row| row["established"].as_i64())
        .sum();
    ensure!(
        usize::try_from(counted) == Ok(expected) && answer["exact"] == true,
        "`probe count` says {counted} of {expected} connections, exact: {}: {}",
        answer["exact"],
        answer["degraded"]
    );
    Ok(())
}

fn against_ss(context: &Context, agent: &Agent, size: &Size) -> Result<Row> {
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.rounds() {
        let (count, ss) = (count(agent)?.as_secs_f64(), ss()?.as_secs_f64());
        ratios.push(count / ss);
        ours.push(count * 1e3);
        theirs.push(ss * 1e3);
    }
    let (ratio, ours, theirs) = (median(&ratios)?, median(&ours)?, median(&theirs)?);
    Ok(Row::new(
        &format!("`probe count` at {} connections / `ss -Htn state established | wc -l`", size.many),
        Goal::AtMost(0.02),
        "",
        ratio.value,
    )
    .interval(ratio.interval)
    .detail(format!("{:.1} / {:.1} ms", ours.value, theirs.value))
    .limit(
        "2 ms are the start of a process (`probe --version`), 0.4 ms the agent's look at how many sockets each \
         network namespace has in `time_wait` (with `--state established` it does not look); then 400 rows are read \
         and put into a table, by a profile mostly page faults.",
    ))
}

/// Both alike: by themselves, not beside an `ss` that takes the caches for itself.
fn growth(size: &Size, few: &[f64], many: &[f64]) -> Result<Row> {
    let (few, many) = (median(few)?, median(many)?);
    let what = format!("`probe count` at {} connections / at {}", size.many, size.few);
    Ok(Row::new(&what, Goal::AtMost(1.2), "", many.value / few.value)
        .detail(format!("{:.1} / {:.1} ms", many.value, few.value))
        .limit(
            "Nothing in a count goes through connections, and 400 rows are read in both; what the rest is was not \
             found.",
        ))
}

fn scrape(context: &Context, agent: &Agent, size: &Size) -> Result<Row> {
    let mut length = 0;
    let times = repeated(context, || {
        let start = Instant::now();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, agent.port))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "no metrics: {answer:.200}");
        length = answer.len();
        Ok(start.elapsed())
    })?;
    let median = median(&times)?;
    let what = format!("`/metrics` at {} connections in {} cgroups", size.many, size.cgroups);
    Ok(Row::new(&what, Goal::AtMost(10.0), "ms", median.value)
        .interval(median.interval)
        .detail(format!("{length} bytes")))
}

fn memory(size: &Size, few: &Maps, many: &Maps, tracked: f64) -> [Row; 2] {
    [
        Row::new(
            "kernel maps, all together at capacity",
            Goal::AtMost(320.0),
            "B/entry",
            many.at_capacity() as f64 / many.capacity() as f64,
        )
        .detail(format!("keys and values of every map, for {} entries", many.capacity()))
        .limit("An entry is 280 B of it; the ring, the counters and the waiting handshakes are the rest."),
        Row::new(
            "kernel maps, charged",
            Goal::None,
            "B/entry",
            many.charged().saturating_sub(few.charged()) as f64 / tracked,
        )
        .detail(format!(
            "{:.1} MiB charged with {} connections, {:.1} MiB with {}",
            few.charged() as f64 / MIB,
            size.few,
            many.charged() as f64 / MIB,
            size.many
        )),
    ]
}

/// The maps that a process has open, as the kernel describes them.
struct Maps(Vec<BTreeMap<String, u64>>);

const HASH: u64 = 1;
const RING: u64 = 27;

impl Maps {
    fn of(pid: u32) -> Result<Self> {
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            let fields: BTreeMap<String, u64> = text
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
                .collect();
            if let Some(id) = fields.get("map_id") {
                maps.insert(*id, fields);
            }
        }
        if maps.is_empty() {
            bail!("process {pid} has no maps open");
        }
        Ok(Self(maps.into_values().collect()))
    }

    /// Entries of the largest hash map, which is the one of connections.
    fn capacity(&self) -> u64 {
        let hashes = self.0.iter().filter(|map| map["map_type"] == HASH);
        hashes.map(|map| map["max_entries"]).max().unwrap_or(1)
    }

    fn at_capacity(&self) -> u64 {
        let bytes = |map: &BTreeMap<String, u64>| {
            let each =
                if map["map_type"] == RING { 1 } else { map["key_size"] + map["value_size"] };
            each * map["max_entries"]
        };
        self.0.iter().map(bytes).sum()
    }

    fn charged(&self) -> u64 {
        self.0.iter().map(|map| map["memlock"]).sum()
    }
}

/// From the start of the process until its counts are exact.
fn attach(context: &Context, crowd: &Crowd, size: &Size) -> Result<Row> {
    let times: Vec<f64> = (0..context.rounds().min(5))
        .map(|_| {
            let start = Instant::now();
            let agent = Agent::start(context, &[])?;
            let took = start.elapsed().as_secs_f64();
            check(&agent, crowd, size.many)?;
            Ok(took)
        })
        .collect::<Result<_>>()?;
    let median = median(&times)?;
    let what = format!("attach with {} open connections, to exact counts", size.many);
    Ok(Row::new(&what, Goal::AtMost(1.0), "s", median.value)
        .interval(median.interval)
        .detail("from the start of `probe serve` until it listens")
        .limit(
            "Without an open connection, 53 % of an attach was the kernel's verifier (a profile), most of that for \
             the two copies of `inet_sock_set_state`; the rest is mainly the reading of the kernel's types. The \
             walk over the open connections comes on top.",
        ))
}
