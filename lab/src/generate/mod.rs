//! A capture of any size, made up instead of recorded, with the client results that belong to it and
//! the answers that an analysis must find. The same seed makes the same bytes.
//!
//! Everything is drawn in order of time and written as it ends, so that memory holds only the
//! connections that are open at one time.

mod answers;
mod leg;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use capture::CaptureWriter;
use capture::meta::{Meta, Selection};
use capture::schema::{
    ClockRow, ConnectionRow, ContainerRow, CountRow, HealthRow, KernelRow, MAJOR, MINOR,
};

use crate::client::record::Record;
use crate::error::{LabError, file_error};
use answers::Answers;
use leg::{Leg, Traffic};

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
/// When the recording starts, on the monotonic clock.
const START_NS: i64 = 1_000 * SECOND;
/// The same instant by Unix time: 2023-11-14 22:13:20 UTC.
const START_UNIX_NS: i64 = 1_700_000_000 * SECOND;
const PORT: u16 = 3005;
const NETNS: u32 = 4_026_531_840;
const CGROUP: u64 = 4_711;
const CONTAINER: &str = "web";
const URL: &str = "http://127.0.0.1:3005/health";
/// When in each second the server is polled, and for how long.
const POLL_AT_NS: i64 = 300 * MS;
const POLL_NS: i64 = 2 * MS;
/// No host has more.
const MOST: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) output: PathBuf,
    pub(crate) seed: u64,
    pub(crate) host: String,
    pub(crate) connections: u64,
    /// Rows of the client results.
    pub(crate) clients: u64,
    /// One a second: also how long the recording lasts.
    pub(crate) health: u32,
    pub(crate) phantoms: u64,
    pub(crate) open: u64,
}

/// Writes `capture/`, `clients.jsonl` and `answers.json`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    check(options)?;
    let dir = &options.output;
    let mut meta = meta(options);
    let writer = CaptureWriter::create(&dir.join("capture"), &meta).map_err(LabError::usage)?;
    let path = dir.join("clients.jsonl");
    let clients = File::create_new(&path).map_err(|e| file_error(&path, "create", &e))?;
    let mut generator = Generator {
        traffic: Traffic::new(options),
        writer,
        clients: BufWriter::with_capacity(1 << 20, clients),
        answers: Answers::default(),
        open: BTreeMap::new(),
        staying: Vec::new(),
        changes: BinaryHeap::new(),
        now: Now::default(),
    };
    for second in 0..i64::from(options.health) {
        generator.second(START_NS + second * SECOND)?;
    }
    let ended_ns = START_NS + i64::from(options.health) * SECOND;
    meta.ended_mono_ns = Some(ended_ns);
    generator.finish(ended_ns, &meta, dir)
}

fn check(options: &Options) -> anyhow::Result<()> {
    let Options { connections, clients, health, phantoms, open, .. } = options;
    let wrong = if !(1_000..=MOST).contains(connections) {
        format!("--connections {connections}: expected 1k to 1000M")
    } else if *health < 60 {
        format!("--health {health}: expected 60 samples or more")
    } else if clients > connections {
        format!("--clients {clients}: expected no more than there are connections")
    } else if (phantoms + open) * 10 > *connections {
        format!(
            "--phantoms {phantoms} and --open {open}: expected a tenth of the connections at most"
        )
    } else {
        return Ok(());
    };
    Err(LabError::usage(wrong))
}

fn meta(options: &Options) -> Meta {
    Meta {
        schema_major: MAJOR,
        schema_minor: MINOR,
        host: options.host.clone(),
        kernel: "6.18.0".to_owned(),
        boot_id: format!("generated-{}", options.seed),
        probe_version: env!("CARGO_PKG_VERSION").to_owned(),
        command_line: vec![
            "lab".to_owned(),
            "generate".to_owned(),
            format!("--seed={}", options.seed),
            format!("--connections={}", options.connections),
        ],
        backend: "ebpf".to_owned(),
        hooks: vec!["tp_btf/inet_sock_set_state".to_owned()],
        degraded: Vec::new(),
        started_mono_ns: START_NS,
        started_unix_ns: START_UNIX_NS,
        ended_mono_ns: None,
        selection: Selection {
            ports: vec![PORT],
            health_urls: vec![URL.to_owned()],
            ..Selection::default()
        },
    }
}

/// What changes a count, at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Opened {
        upgraded: bool,
    },
    Left {
        upgraded: bool,
    },
    /// As `Left`, but the server keeps it on its books.
    Leaked,
}

/// What kernel and server count at one time.
#[derive(Debug, Default)]
struct Now {
    upgraded: i64,
    http: i64,
    leaked: i64,
    opened_total: u64,
    closed_total: u64,
}

struct Generator {
    traffic: Traffic,
    writer: CaptureWriter,
    clients: BufWriter<File>,
    answers: Answers,
    /// Not yet written: by when they close, and their number.
    open: BTreeMap<(i64, u64), Leg>,
    /// Open when the recording ends.
    staying: Vec<Leg>,
    changes: BinaryHeap<Reverse<(i64, Change)>>,
    now: Now,
}

impl Generator {
    /// One round of counts, one poll of the server, and what connected and closed until then.
    fn second(&mut self, tick_ns: i64) -> anyhow::Result<()> {
        self.advance(tick_ns)?;
        self.writer.counts(&[self.counts(tick_ns)])?;
        self.writer.kernel(&[
            kernel(tick_ns, "CurrEstab", (self.now.upgraded + self.now.http) as f64),
            kernel(tick_ns, "drift", 0.0),
        ])?;
        let second = (tick_ns - START_NS) / SECOND;
        if second % 10 == 0 {
            let unix_ns = START_UNIX_NS + (tick_ns - START_NS);
            self.writer.clock(&[ClockRow { mono_ns: tick_ns, unix_ns }])?;
        }
        let start_ns = tick_ns + POLL_AT_NS;
        self.advance(start_ns)?;
        let port = 50_000 + (second % 10_000) as u16;
        let reported = self.now.upgraded + self.now.leaked;
        self.writer.health(&[health(start_ns, port, reported)])?;
        self.writer.connections(&[poll_row(start_ns, port, second as u64)])?;
        self.now.opened_total += 1;
        self.now.closed_total += 1;
        self.answers.polls += 1;
        Ok(())
    }

    /// Draws everything that starts until then, and writes what has closed.
    fn advance(&mut self, until_ns: i64) -> anyhow::Result<()> {
        while let Some(leg) = self.traffic.next_until(until_ns) {
            self.answers.add(&leg);
            if let Some(record) = self.traffic.client(&leg) {
                self.answers.clients.add(&record);
                self.write_client(&record)?;
            }
            if let Some(established) = leg.established_ns {
                let upgraded = leg.is_upgraded();
                self.changes.push(Reverse((established, Change::Opened { upgraded })));
                let left = if leg.leaks { Change::Leaked } else { Change::Left { upgraded } };
                self.changes.extend(leg.closed_ns.map(|at| Reverse((at, left))));
            }
            match leg.closed_ns {
                Some(at) => drop(self.open.insert((at, leg.number), leg)),
                None => self.staying.push(leg),
            }
        }
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.key().0 <= until_ns) {
            let row = entry.remove().row();
            self.writer.connections(&[row])?;
        }
        while let Some(Reverse((_, change))) =
            self.changes.peek().copied().filter(|Reverse((at, _))| *at <= until_ns)
        {
            self.changes.pop();
            self.now.apply(change);
        }
        Ok(())
    }

    fn write_client(&mut self, record: &Record) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.clients, record)?;
        self.clients.write_all(b"\n")?;
        Ok(())
    }

    fn counts(&self, at_mono_ns: i64) -> CountRow {
        CountRow {
            at_mono_ns,
            cgroup_id: CGROUP,
            netns: NETNS,
            port: PORT.into(),
            role: "passive",
            established: self.now.upgraded + self.now.http,
            syn_sent: 0,
            fin_wait_1: 0,
            fin_wait_2: 0,
            close: 0,
            close_wait: 0,
            last_ack: 0,
            listen: 1,
            closing: 0,
            class_unknown: 0,
            class_silent: 0,
            class_http: self.now.http,
            class_upgraded: self.now.upgraded,
            class_tls: 0,
            class_other: 0,
            established_total: self.now.opened_total,
            accepted_total: self.now.opened_total,
            closed_total: self.now.closed_total,
        }
    }

    fn finish(mut self, ended_ns: i64, meta: &Meta, dir: &Path) -> anyhow::Result<()> {
        self.advance(ended_ns)?;
        self.writer.counts(&[self.counts(ended_ns)])?;
        for leg in &self.staying {
            self.writer.connections(&[leg.row()])?;
        }
        self.writer.containers(&[ContainerRow {
            cgroup_id: CGROUP,
            first_seen_mono_ns: START_NS,
            path: Some("/docker/5eed".into()),
            runtime: "docker".into(),
            container_id: Some("5eed".into()),
            name: CONTAINER.into(),
        }])?;
        self.clients.flush()?;
        self.answers.phantoms = self.now.leaked;
        self.answers.established_at_end = self.now.upgraded + self.now.http;
        let summary = self.writer.finish(meta)?;
        let answers = dir.join("answers.json");
        let mut text = serde_json::to_string_pretty(&self.answers.finish())?;
        text.push('\n');
        fs::write(&answers, text).map_err(|error| file_error(&answers, "write", &error))?;
        let rows = summary.rows.iter().map(|(_, rows)| rows).sum::<u64>();
        eprintln!(
            "{}: {rows} rows in {:.1} MB, {} client rows; known answers in {}",
            dir.join("capture").display(),
            summary.bytes as f64 / 1e6,
            self.answers.clients.total(),
            answers.display()
        );
        Ok(())
    }
}

impl Now {
    fn apply(&mut self, change: Change) {
        let (upgraded, by) = match change {
            Change::Opened { upgraded } => (upgraded, 1),
            Change::Left { upgraded } => (upgraded, -1),
            Change::Leaked => (true, -1),
        };
        *if upgraded { &mut self.upgraded } else { &mut self.http } += by;
        self.leaked += i64::from(change == Change::Leaked);
        *if by > 0 { &mut self.opened_total } else { &mut self.closed_total } += 1;
    }
}

fn kernel(at_mono_ns: i64, name: &'static str, value: f64) -> KernelRow {
    KernelRow { at_mono_ns, netns: NETNS, name: name.into(), value }
}

fn health(start_mono_ns: i64, port: u16, reported: i64) -> HealthRow {
    HealthRow {
        url: URL.into(),
        start_mono_ns,
        end_mono_ns: start_mono_ns + POLL_NS,
        local_address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        local_port: Some(port.into()),
        http_status: Some(200),
        error: None,
        reported: Some(reported),
        fields: Some(format!("{{\".checks.capacity.current\": {reported}}}").into()),
        kernel_min: None,
        kernel_max: None,
    }
}

/// The poller's own connection, which must not count.
fn poll_row(start_ns: i64, port: u16, number: u64) -> ConnectionRow {
    leg::poll(start_ns, start_ns + POLL_NS, port, number).row()
}

/// How many of the first `seen` are taken if `part` of `whole` are, evenly spread.
fn share(part: u64, whole: u64, seen: u64) -> u64 {
    (u128::from(part) * u128::from(seen) / u128::from(whole.max(1))) as u64
}

/// Whether the `number`th (from 0) is one of them.
fn takes(part: u64, whole: u64, number: u64) -> bool {
    share(part, whole, number + 1) > share(part, whole, number)
}
