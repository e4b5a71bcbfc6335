//! Feeds the board from a capture, as of any moment of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    path::Path,
    sync::Arc,
};

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Int64Type, UInt32Type, UInt64Type},
};
use capture::{Capture, ReadError, meta::Meta, schema::Table};

use super::{
    board::{Board, Level, Reported, Service, sums},
    leg::Leg,
    table::Connection,
};
use crate::{
    error::Error, filter::Filter, health::url::HealthUrl, identity::cgroup::Runtime, truth,
};

/// Between two samples of a capture's counts.
const SECOND: i64 = 1_000_000_000;

/// What a row is of: cgroup, namespace, port, role.
type Key = (u64, u32, u16, Cow<'static, str>);

/// A count that changed.
#[derive(Debug)]
struct Count {
    at_ns: i64,
    key: Key,
    level: Level,
}

#[derive(Debug)]
struct Loss {
    from_ns: i64,
    reason: String,
    /// 0 where nothing is known to be gone.
    count: u64,
}

#[derive(Debug)]
struct Container {
    name: String,
    is_host: bool,
}

/// A whole capture in memory. Times are monotonic nanoseconds of the host that recorded it.
#[derive(Debug)]
pub(crate) struct Replay {
    meta: Meta,
    pub(crate) from_ns: i64,
    pub(crate) until_ns: i64,
    containers: HashMap<u64, Container>,
    counts: Vec<Count>,
    legs: Vec<Leg>,
    reported: Vec<(i64, Reported)>,
    losses: Vec<Loss>,
    /// How far the board has come: the next sample, and the count rows that are in it.
    next_ns: i64,
    taken: usize,
    levels: HashMap<Key, Level>,
}

impl Replay {
    /// Reads the capture.
    ///
    /// # Errors
    /// [`Error::Input`] for what is no capture, or one without a single count.
    pub(crate) fn open(dir: &Path, filter: &Filter) -> anyhow::Result<Self> {
        let capture = Capture::open(dir).map_err(|error| refused(&error))?;
        let mut containers = HashMap::new();
        each(&capture, Table::Containers, |batch, row| {
            let is_host = text_at(batch, "runtime", row) == Runtime::Host.name();
            let name = text_at(batch, "name", row);
            containers.insert(u64_at(batch, "cgroup_id", row), Container { name, is_host });
        })?;
        let mut counts = Vec::new();
        each(&capture, Table::Counts, |batch, row| counts.push(count(batch, row)))?;
        counts.sort_by_key(|count| count.at_ns);
        let mut losses = Vec::new();
        each(&capture, Table::Loss, |batch, row| {
            losses.push(Loss {
                from_ns: i64_at(batch, "from_mono_ns", row).unwrap_or(0),
                reason: text_at(batch, "reason", row),
                count: u64_at(batch, "count", row),
            });
        })?;
        let (Some(first), Some(last)) = (counts.first(), counts.last()) else {
            let next = without_counts(capture.meta(), &losses);
            let what = format!("{}: the capture holds no counts", dir.display());
            return Err(Error::input(what, next).into());
        };
        let (from_ns, until_ns) = (first.at_ns, last.at_ns);
        let mut replay = Self {
            meta: capture.meta().clone(),
            from_ns,
            until_ns,
            containers,
            counts,
            legs: Vec::new(),
            reported: Vec::new(),
            losses,
            next_ns: from_ns,
            taken: 0,
            levels: HashMap::new(),
        };
        let mut services = HashMap::new();
        let mut legs = Vec::new();
        each(&capture, Table::Connections, |batch, row| {
            legs.push(replay.leg(batch, row, &mut services));
        })?;
        let mut reported = Vec::new();
        let known: BTreeSet<Service> =
            replay.counts.iter().map(|count| replay.service(&count.key)).collect();
        each(&capture, Table::Health, |batch, row| {
            reported.push(replay.reported(batch, row, &known));
        })?;
        replay.leave_out_shards(&mut reported);
        let kept = |service: &Service| keeps(filter, service);
        legs.retain(|leg: &Leg| kept(&leg.service));
        replay.legs = legs;
        replay.reported = reported;
        replay.keep_counts(kept);
        Ok(replay)
    }

    pub(crate) fn host(&self) -> &str {
        &self.meta.host
    }

    pub(crate) fn backend(&self) -> &str {
        &self.meta.backend
    }

    /// The board as of `at_ns`: goes on from where it is, or starts anew if that is behind.
    pub(crate) fn advance(&mut self, board: &mut Board, at_ns: i64) {
        if at_ns < board.at_mono_ns {
            *board = Board::default();
            (self.next_ns, self.taken) = (self.from_ns, 0);
            self.levels.clear();
        }
        let before_ns = board.at_mono_ns;
        while self.next_ns <= at_ns {
            self.sample(board);
            // The last second is rarely a whole one.
            let rest = self.until_ns - self.next_ns;
            self.next_ns += if rest > 0 { SECOND.min(rest) } else { SECOND };
        }
        board.at_mono_ns = at_ns;
        board.at_unix_ns = self.unix_of(at_ns);
        let over: Vec<Leg> = self
            .legs
            .iter()
            .filter(|leg| leg.until_ns.is_some_and(|end| before_ns < end && end <= at_ns))
            .cloned()
            .collect();
        board.take_ended(&over);
        board.take_open(
            self.legs
                .iter()
                .filter(|leg| leg.from_ns <= at_ns && leg.until_ns.is_none_or(|end| end > at_ns))
                .map(|leg| as_of(leg, at_ns)),
        );
        for (end_ns, reported) in &self.reported {
            if before_ns < *end_ns && *end_ns <= at_ns {
                board.take_reported(reported.clone());
            }
        }
        board.degraded = told(self.losses.iter().filter(|loss| loss.from_ns <= at_ns));
        board.exact = board.degraded.is_empty() && self.meta.backend == "ebpf";
        // What stands in the capture's head and is no loss limited it from the start.
        let is_loss =
            |reason: &&String| self.losses.iter().any(|loss| reason.contains(&loss.reason));
        let limits = self.meta.degraded.iter().filter(|reason| !is_loss(reason));
        board.degraded.extend(limits.cloned());
    }

    /// The counts as of `next_ns`.
    fn sample(&mut self, board: &mut Board) {
        while let Some(count) =
            self.counts.get(self.taken).filter(|count| count.at_ns <= self.next_ns)
        {
            self.levels.insert(count.key.clone(), count.level);
            self.taken += 1;
        }
        board.count(self.next_ns, self.unix_of(self.next_ns), self.services());
    }

    /// The rows of a service that are open at the board's moment.
    pub(crate) fn connections(board: &Board, service: &Service) -> Vec<Connection> {
        board
            .open()
            .filter(|leg| *leg.service == *service)
            .map(|leg| Connection::of_leg(leg, board.at_mono_ns))
            .collect()
    }

    fn unix_of(&self, mono_ns: i64) -> i64 {
        self.meta.started_unix_ns + (mono_ns - self.meta.started_mono_ns)
    }

    fn service(&self, (cgroup_id, netns, port, role): &Key) -> Service {
        let known = self.containers.get(cgroup_id);
        Service {
            container: known.map_or_else(|| format!("cgroup-{cgroup_id}"), |one| one.name.clone()),
            port: *port,
            role: role.clone(),
            netns: if known.is_some_and(|one| one.is_host) { *netns } else { 0 },
        }
    }

    fn services(&self) -> Vec<(Service, Level)> {
        sums(self.levels.iter().map(|(key, level)| (self.service(key), key.1, *level)))
    }

    /// A balancer's own legs to its shards were no part of what was held against its report. A capture does not say
    /// so, but its numbers do: they are those of the port alone that was asked.
    fn leave_out_shards(&self, reported: &mut [(i64, Reported)]) {
        let mut levels = HashMap::new();
        let mut counts = self.counts.iter().peekable();
        // How far the sums are from what the reports were held against: of the asked port, of all.
        let mut apart = (0, 0);
        for (end_ns, report) in reported.iter() {
            while let Some(count) = counts.next_if(|count| count.at_ns <= *end_ns) {
                levels.insert(self.service(&count.key), count.level.established);
            }
            let (Some(asked), Some(kernel)) = (asked_port(&report.url), report.kernel_max) else {
                return;
            };
            let sum = |of_asked_only: bool| -> i64 {
                let services = report.services.iter();
                let counted = services.filter(|service| !of_asked_only || service.port == asked);
                counted.filter_map(|service| levels.get(service)).sum()
            };
            apart.0 += (sum(true) - kernel).abs();
            apart.1 += (sum(false) - kernel).abs();
        }
        if apart.0 < apart.1 {
            for (_, report) in reported {
                let asked = asked_port(&report.url);
                report.services.retain(|service| Some(service.port) == asked);
            }
        }
    }

    fn keep_counts(&mut self, kept: impl Fn(&Service) -> bool) {
        let counts = std::mem::take(&mut self.counts);
        self.counts = counts.into_iter().filter(|count| kept(&self.service(&count.key))).collect();
    }

    fn leg(
        &self,
        batch: &RecordBatch,
        row: usize,
        services: &mut HashMap<Key, Arc<Service>>,
    ) -> Leg {
        let time = |name: &str| i64_at(batch, name, row);
        let key = key(batch, row);
        let active = key.3 == "active";
        let netns = key.1;
        let service = match services.entry(key) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let service = Arc::new(self.service(new.key()));
                Arc::clone(new.insert(service))
            }
        };
        let end = |address: &str, port: &str| {
            let ip = text_at(batch, address, row).parse();
            let ip = ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
            std::net::SocketAddr::new(ip, port_at(batch, port, row))
        };
        let outcome = maybe_text_at(batch, "outcome", row);
        let first_seen = time("first_seen_ns").unwrap_or(0);
        let seeded = bool_at(batch, "seeded", row);
        let syn = if active { (!seeded).then_some(first_seen) } else { time("syn_received_ns") };
        let frames = [time("first_frame_in_ns"), time("first_frame_out_ns")];
        let pid = u32_at(batch, "pid", row);
        Leg {
            key: (
                u64_at(batch, "cookie", row),
                u32_at(batch, "generation", row).unwrap_or(0),
                netns,
            ),
            service,
            local: end("local_address", "local_port"),
            peer: end("remote_address", "remote_port"),
            state: text_at(batch, "state", row).into(),
            class: text_at(batch, "class", row).into(),
            stages: [
                syn,
                time("established_ns"),
                time("accepted_ns"),
                time("request_ns"),
                time("response_ns"),
                time("upgraded_ns"),
                frames.into_iter().flatten().min(),
            ],
            from_ns: first_seen,
            until_ns: time("closed_ns"),
            retransmits: u32_at(batch, "retransmits", row),
            process: match (maybe_text_at(batch, "comm", row), pid) {
                (Some(comm), Some(pid)) => format!("{comm}/{pid}"),
                _ => String::new(),
            },
            pid: pid.unwrap_or(0),
            // A capture does not keep what an open request asked for.
            asked: false,
            outcome: outcome.map(Cow::Owned),
        }
    }

    fn reported(
        &self,
        batch: &RecordBatch,
        row: usize,
        known: &BTreeSet<Service>,
    ) -> (i64, Reported) {
        let time = |name: &str| i64_at(batch, name, row);
        let url = text_at(batch, "url", row);
        let selection = &self.meta.selection;
        let ports: Vec<u16> = if selection.ports.is_empty() {
            asked_port(&url).into_iter().collect()
        } else {
            selection.ports.clone()
        };
        let services = known
            .iter()
            .filter(|service| {
                let roles = &selection.roles;
                let role = if roles.is_empty() {
                    service.role == "passive"
                } else {
                    roles.iter().any(|role| *role == service.role)
                };
                let containers = &selection.containers;
                role && ports.contains(&service.port)
                    && (containers.is_empty() || containers.contains(&service.container))
            })
            .cloned()
            .collect();
        let reported = Reported {
            url,
            answer: time("reported").ok_or_else(|| {
                maybe_text_at(batch, "error", row).unwrap_or_else(|| "no answer".into())
            }),
            kernel_min: time("kernel_min"),
            kernel_max: time("kernel_max"),
            services,
            shards: Vec::new(),
        };
        (time("end_mono_ns").unwrap_or(0), reported)
    }
}

fn asked_port(url: &str) -> Option<u16> {
    url.parse::<HealthUrl>().ok().map(|url| url.port)
}

/// The leg as it was known at a moment within its life.
fn as_of(leg: &Leg, at_ns: i64) -> Leg {
    let mut leg = leg.clone();
    if leg.until_ns.is_some() {
        // Its last state and its totals were written at its end.
        leg.state =
            if leg.stages[1].is_some_and(|at| at <= at_ns) { "established" } else { "" }.into();
        leg.retransmits = None;
        leg.until_ns = None;
        // What the end decided was not known yet; an upgrade was, once it was there.
        let upgraded = leg.stages[5].is_some_and(|at| at <= at_ns);
        leg.outcome = leg.outcome.map(|_| if upgraded { "upgraded" } else { "open" }.into());
    }
    for stage in &mut leg.stages {
        *stage = stage.filter(|at| *at <= at_ns);
    }
    leg
}

fn keeps(filter: &Filter, service: &Service) -> bool {
    (filter.containers.is_empty() || filter.containers.contains(&service.container))
        && filter.ports.contains(service.port)
        && (filter.roles.is_empty() || filter.roles.iter().any(|role| role.name() == service.role))
}

fn key(batch: &RecordBatch, row: usize) -> Key {
    (
        u64_at(batch, "cgroup_id", row),
        u32_at(batch, "netns", row).unwrap_or(0),
        port_at(batch, "port", row),
        text_at(batch, "role", row).into(),
    )
}

fn count(batch: &RecordBatch, row: usize) -> Count {
    let number = |name: &str| i64_at(batch, name, row).unwrap_or(0);
    Count {
        at_ns: number("at_mono_ns"),
        key: key(batch, row),
        level: Level {
            established: number("established"),
            upgraded: number("class_upgraded"),
            close_wait: number("close_wait"),
            closed_held: number("close"),
            listening: number("listen") > 0,
            opened_total: u64_at(batch, "established_total", row),
            closed_total: u64_at(batch, "closed_total", row),
            namespaces: 0,
        },
    }
}

/// A line for each reason. A loss that goes on has a row a second.
fn told<'a>(losses: impl Iterator<Item = &'a Loss>) -> Vec<String> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for loss in losses {
        *sums.entry(&loss.reason).or_default() += loss.count;
    }
    let line = |(reason, count): (&str, u64)| {
        if count == 0 { reason.to_owned() } else { format!("{count} {reason}") }
    };
    sums.into_iter().map(line).collect()
}

/// What the capture itself says of why it holds no counts.
fn without_counts(meta: &Meta, losses: &[Loss]) -> String {
    let mut said = told(losses.iter()).into_iter().chain(meta.degraded.iter().cloned());
    let lost = said.find(|reason| truth::losses::lost(reason).is_some());
    match (lost, meta.ended_mono_ns) {
        (Some(reason), _) => format!("it says: {reason}"),
        (None, None) => {
            "it was cut off in its first second: record again with `probe record`".to_owned()
        }
        (None, Some(_)) => {
            "there was no socket to count: record again while the service runs".to_owned()
        }
    }
}

/// What is wrong with a capture is the user's to know, with its file.
fn refused(error: &ReadError) -> anyhow::Error {
    Error::input(error.to_string(), "give the directory that `probe record -o` wrote").into()
}

fn each(
    capture: &Capture,
    table: Table,
    mut take: impl FnMut(&RecordBatch, usize),
) -> anyhow::Result<()> {
    for batch in capture.batches(table).map_err(|error| refused(&error))? {
        let batch = batch.map_err(|error| refused(&error))?;
        for row in 0..batch.num_rows() {
            take(&batch, row);
        }
    }
    Ok(())
}

/// A column by its name. The reader has checked names and types: a column that the file lacks is
/// there, and null.
fn column<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a dyn Array> {
    let column = batch.column_by_name(name)?;
    column.is_valid(row).then_some(column.as_ref())
}

fn i64_at(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    Some(column(batch, name, row)?.as_primitive_opt::<Int64Type>()?.value(row))
}

fn u64_at(batch: &RecordBatch, name: &str, row: usize) -> u64 {
    column(batch, name, row)
        .and_then(|column| Some(column.as_primitive_opt::<UInt64Type>()?.value(row)))
        .unwrap_or(0)
}

fn u32_at(batch: &RecordBatch, name: &str, row: usize) -> Option<u32> {
    Some(column(batch, name, row)?.as_primitive_opt::<UInt32Type>()?.value(row))
}

fn port_at(batch: &RecordBatch, name: &str, row: usize) -> u16 {
    u32_at(batch, name, row).and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

fn bool_at(batch: &RecordBatch, name: &str, row: usize) -> bool {
    column(batch, name, row)
        .and_then(|column| Some(column.as_boolean_opt()?.value(row)))
        .unwrap_or(false)
}

fn maybe_text_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    Some(column(batch, name, row)?.as_string_opt::<i32>()?.value(row).to_owned())
}

fn text_at(batch: &RecordBatch, name: &str, row: usize) -> String {
    maybe_text_at(batch, name, row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use capture::{CaptureWriter, meta::Selection, schema::LossRow};

    use super::*;

    fn meta(ended_mono_ns: Option<i64>) -> Meta {
        Meta {
            schema_major: capture::schema::MAJOR,
            schema_minor: capture::schema::MINOR,
            host: "vm".into(),
            kernel: "6.18".into(),
            boot_id: String::new(),
            probe_version: String::new(),
            command_line: Vec::new(),
            backend: "ebpf".into(),
            hooks: Vec::new(),
            degraded: vec!["the host cannot do something".into()],
            started_mono_ns: 1,
            started_unix_ns: 1,
            ended_mono_ns,
            selection: Selection::default(),
        }
    }

    #[test]
    fn without_counts_the_capture_says_why() {
        let full = "connections were not counted: more containers × ports were in use at once than \
                    there are counters";
        for (lost, ended, next) in [
            (Some(full), Some(2), format!("it says: 3 {full}")),
            (Some("no audit since 02:00"), Some(2), "there was no socket to count: ".to_owned()),
            (None, Some(2), "there was no socket to count: ".to_owned()),
            (None, None, "it was cut off in its first second: ".to_owned()),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let mut writer = CaptureWriter::create(directory.path(), &meta(None)).unwrap();
            if let Some(reason) = lost {
                let row = |count, reason| LossRow { from_mono_ns: 1, to_mono_ns: 2, reason, count };
                let lost = u64::from(reason == full);
                let rows = [lost, 2 * lost].map(|count| row(count, reason.into()));
                writer.loss(&rows).unwrap();
            }
            match ended {
                Some(_) => drop(writer.finish(&meta(ended)).unwrap()),
                None => writer.flush().unwrap(),
            }
            let error = Replay::open(directory.path(), &Filter::default()).unwrap_err().to_string();
            assert!(error.contains("the capture holds no counts"), "{error}");
            assert!(error.contains(&next), "{error}");
        }
    }
}
