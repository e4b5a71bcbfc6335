//! The recording itself: a tick a second for counts and counters, and whatever ends in between.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use capture::{
    CaptureWriter, WriteError,
    meta::Meta,
    schema::{ClockRow, ConnectionRow, KernelRow, LossRow},
    writer::Summary,
};
use probe_common::{
    connection::{Connection, flag},
    key::{CountKey, CountSlot},
    state,
};

use super::{
    ask::Answer,
    counters::{self, Counters},
    output::Output,
    reasons::Reasons,
    rows,
};
use crate::{
    clock::{self, Pair},
    export::json::{key_of, service_port},
    filter::Filter,
    handshake::{follow::Observed, outcome::Sight},
    health::listing::Tracker,
    identity::{Identity, cgroup::Container},
    truth::{
        polled::dump_all,
        sock_diag::{Detail, DiagSocket},
        source::Source,
    },
};

/// Between clock pairs.
const CLOCK_EVERY_S: u64 = 10;

/// Between walks over all sockets, which note what no event has shown.
const SETTLE_EVERY_S: u64 = 5;

/// The namespace of what is no namespace's: how the recording itself fares.
const HOST: u32 = 0;

/// What tells one connection from all others.
type Key = (u64, u64, u32);

fn identity_of(connection: &Connection) -> Key {
    (connection.sk, connection.cookie, connection.generation)
}

pub(crate) struct Recorder {
    source: Arc<dyn Source>,
    identity: Arc<Identity>,
    filter: Filter,
    /// Ports whose every connection is an attempt at a WebSocket handshake.
    websocket_ports: Vec<u16>,
    sight: Sight,
    output: Output,
    ticks: u64,
    counts: HashMap<CountKey, [i64; 21]>,
    kernel: HashMap<u32, Counters>,
    containers: HashMap<u64, Container>,
    reasons: Reasons,
    checked_mono_ns: i64,
    /// Of the last tick.
    clock: Pair,
    /// Ended since the last snapshot of open connections was asked for.
    ended: Option<HashSet<Key>>,
    /// The server's own list of connections, once it was asked for.
    listed: Option<Tracker>,
}

impl Recorder {
    pub(crate) fn new(
        source: Arc<dyn Source>,
        identity: Arc<Identity>,
        filter: Filter,
        websocket_ports: Vec<u16>,
        output: Output,
    ) -> Self {
        Self {
            sight: Sight::of(&source.hooks()),
            source,
            identity,
            filter,
            websocket_ports,
            output,
            ticks: 0,
            counts: HashMap::new(),
            kernel: HashMap::new(),
            containers: HashMap::new(),
            reasons: Reasons::default(),
            checked_mono_ns: clock::mono_ns(),
            clock: Pair::now(),
            ended: None,
            listed: None,
        }
    }

    /// A batch of connections that ended.
    pub(crate) fn take_ended(&mut self, batch: &[Observed]) -> Result<(), WriteError> {
        if let Some(ended) = &mut self.ended {
            ended.extend(batch.iter().map(|ended| identity_of(ended)));
        }
        for connection in batch {
            if self.keeps(connection) {
                let declared = self.is_declared(connection);
                let row = rows::connection(
                    connection,
                    None,
                    self.number(connection),
                    declared,
                    self.sight,
                );
                self.output.write(&[row], CaptureWriter::connections)?;
            }
        }
        Ok(())
    }

    /// What the server said of itself.
    pub(crate) fn take_asked(&mut self, answer: Answer) -> Result<(), WriteError> {
        match answer {
            Answer::Health(row) => self.output.write(&[row], CaptureWriter::health),
            Answer::Metrics(url, asked) => {
                self.output.write(&rows::metrics(&url, asked), CaptureWriter::metrics)
            }
            Answer::Processes(all) => {
                self.output.write(&rows::processes(&all), CaptureWriter::metrics)
            }
            Answer::Listing(url, asked) => {
                self.output.write(&[rows::listing(&url, &asked)], CaptureWriter::listings)?;
                let Ok(listing) = &asked.answer else { return Ok(()) };
                let tracker = self.listed.get_or_insert_with(|| Tracker::new(url.to_string()));
                let gone = tracker.take(listing, asked.start_mono_ns, asked.end_mono_ns);
                self.output.write(&gone, CaptureWriter::listed)
            }
        }
    }

    /// From the last look until now ended connections are missing. That survives the end of this process.
    pub(crate) fn name_gap(&mut self, reason: &str) -> Result<(), WriteError> {
        let now = clock::mono_ns();
        let loss = LossRow {
            // What ended shortly before was still on its way.
            from_mono_ns: self.checked_mono_ns - DRAIN.as_nanos() as i64,
            to_mono_ns: now,
            reason: reason.to_owned().into(),
            count: 0,
        };
        self.checked_mono_ns = now;
        self.output.write(&[loss], CaptureWriter::loss)?;
        self.flush()
    }

    /// Goes on with another source, whose connections are those of the one before.
    pub(crate) fn go_on_with(&mut self, source: Arc<dyn Source>) {
        self.sight = Sight::of(&source.hooks());
        self.source = source;
        self.forget_written();
    }

    /// Tables of changes begin anew, with all there is.
    fn forget_written(&mut self) {
        self.counts.clear();
        self.kernel.clear();
        self.containers.clear();
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.output.flush()? {
            self.forget_written();
        }
        Ok(())
    }

    /// Once a second.
    pub(crate) async fn tick(&mut self) -> anyhow::Result<()> {
        if self.ticks.is_multiple_of(SETTLE_EVERY_S) {
            tokio::task::block_in_place(|| self.source.settle())?;
        }
        let slots = self.source.slots()?;
        let at_mono_ns = clock::mono_ns();
        self.name(&slots, at_mono_ns).await?;
        self.write_counts(&slots, at_mono_ns, false)?;
        self.write_kernel(&slots, false)?;
        self.write_losses()?;
        self.write_clock(self.ticks.is_multiple_of(CLOCK_EVERY_S))?;
        self.ticks += 1;
        Ok(self.flush()?)
    }

    /// The last rows. `drain` hands over what ended until now, and is called once the connections
    /// that are still open are known.
    pub(crate) async fn finish(
        mut self,
        meta: &mut Meta,
        drain: impl AsyncFnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> anyhow::Result<Summary> {
        tokio::task::block_in_place(|| self.source.settle())?;
        let slots = self.source.slots()?;
        let at_mono_ns = clock::mono_ns();
        self.name(&slots, at_mono_ns).await?;
        self.write_counts(&slots, at_mono_ns, true)?;
        self.write_kernel(&slots, true)?;
        // A connection that ends between the snapshot and the drain is in both: it ended.
        self.ended = Some(HashSet::new());
        let mut open = self.source.connections()?;
        open.extend(self.source.pending()?);
        drain(&mut self).await?;
        self.write_open(&open)?;
        if let Some(tracker) = self.listed.take() {
            self.output.write(&tracker.rest(), CaptureWriter::listed)?;
        }
        self.write_losses()?;
        self.write_clock(true)?;
        meta.degraded = self.reasons.into_told();
        meta.ended_mono_ns = Some(clock::mono_ns());
        Ok(self.output.finish(meta)?)
    }

    fn is_declared(&self, connection: &Connection) -> bool {
        self.websocket_ports.contains(&service_port(connection))
    }

    fn number(&self, connection: &Connection) -> u64 {
        self.identity.number(&key_of(connection))
    }

    fn keeps(&self, connection: &Connection) -> bool {
        connection.flags & flag::LISTENER == 0
            && self.filter.keeps_of(&key_of(connection), &self.identity)
    }

    fn write_open(&mut self, open: &[Observed]) -> anyhow::Result<()> {
        let dumped = dump_all(Detail::TcpInfo)?;
        let by_cookie: HashMap<u64, &DiagSocket> =
            dumped.sockets.iter().map(|socket| (socket.cookie, socket)).collect();
        let ended = self.ended.take().unwrap_or_default();
        let rows: Vec<ConnectionRow> = open
            .iter()
            .filter(|connection| !ended.contains(&identity_of(connection)))
            .filter(|connection| self.keeps(connection))
            .map(|connection| {
                let socket = by_cookie.get(&connection.cookie);
                let info = socket.and_then(|socket| socket.info);
                let declared = self.is_declared(connection);
                rows::connection(connection, info, self.number(connection), declared, self.sight)
            })
            .collect();
        Ok(self.output.write(&rows, CaptureWriter::connections)?)
    }

    /// Rows for containers that are new or have another name.
    async fn name(&mut self, slots: &[CountSlot], at_mono_ns: i64) -> anyhow::Result<()> {
        self.identity.refresh(slots.iter().map(|slot| slot.key)).await;
        for slot in slots {
            let cgroup_id = self.identity.number(&slot.key);
            let container = self.identity.of(&slot.key);
            if self.containers.get(&cgroup_id) == Some(&container) {
                continue;
            }
            let path = self.identity.path(cgroup_id);
            let row = rows::container(cgroup_id, &container, path, at_mono_ns);
            self.output.write(&[row], CaptureWriter::containers)?;
            self.containers.insert(cgroup_id, container);
        }
        Ok(())
    }

    fn write_counts(
        &mut self,
        slots: &[CountSlot],
        at_mono_ns: i64,
        all: bool,
    ) -> Result<(), WriteError> {
        let mut changed = Vec::new();
        for slot in slots {
            if !self.filter.keeps_of(&slot.key, &self.identity) {
                continue;
            }
            let now = fingerprint(slot);
            let before = self.counts.insert(slot.key, now);
            if all || before != Some(now) {
                changed.push(rows::count(slot, self.identity.number(&slot.key), at_mono_ns));
            }
        }
        self.output.write(&changed, CaptureWriter::counts)
    }

    fn write_kernel(&mut self, slots: &[CountSlot], all: bool) -> anyhow::Result<()> {
        let mut changed = Vec::new();
        let counted = slots.iter().map(|slot| slot.key.netns).collect();
        for namespace in self.identity.namespaces(counted)? {
            // A namespace may be gone by now, or be closed to us.
            let Ok(now) = counters::read(&namespace) else { continue };
            self.change(namespace.inode, now, all, &mut changed);
        }
        let vitals: Counters = self
            .source
            .vitals()
            .into_iter()
            .map(|(name, value)| (name.into(), value as f64))
            .collect();
        self.change(HOST, vitals, all, &mut changed);
        Ok(self.output.write(&changed, CaptureWriter::kernel)?)
    }

    fn change(&mut self, netns: u32, now: Counters, all: bool, changed: &mut Vec<KernelRow>) {
        let at_mono_ns = clock::mono_ns();
        let before = self.kernel.entry(netns).or_default();
        changed.extend(
            now.iter().filter(|(name, value)| all || before.get(*name) != Some(*value)).map(
                |(name, value)| KernelRow { at_mono_ns, netns, name: name.clone(), value: *value },
            ),
        );
        *before = now;
    }

    /// A row for each reason that is new, or has gone on, since the last look.
    fn write_losses(&mut self) -> anyhow::Result<()> {
        let exactness = self.source.exactness()?;
        let now = clock::mono_ns();
        let mut rows = Vec::new();
        for (reason, count) in
            exactness.degraded.into_iter().filter_map(|sentence| self.reasons.news(sentence))
        {
            // What was degraded before the first tick is a property of this host, not a loss.
            if self.ticks > 0 {
                let (from_mono_ns, to_mono_ns) = (self.checked_mono_ns, now);
                rows.push(LossRow { from_mono_ns, to_mono_ns, reason, count });
            }
        }
        self.checked_mono_ns = now;
        Ok(self.output.write(&rows, CaptureWriter::loss)?)
    }

    /// A pair where one is due; where Unix time was set, the pair before it as well, so that readers
    /// know when to within a tick.
    fn write_clock(&mut self, due: bool) -> Result<(), WriteError> {
        let now = Pair::now();
        let before = std::mem::replace(&mut self.clock, now);
        let mut pairs = Vec::new();
        if now.set_since(before).is_some() {
            pairs.extend([before, now]);
        } else if due {
            pairs.push(now);
        }
        let rows: Vec<ClockRow> = pairs
            .into_iter()
            .map(|Pair { mono_ns, unix_ns }| ClockRow { mono_ns, unix_ns })
            .collect();
        self.output.write(&rows, CaptureWriter::clock)
    }
}

/// Everything of a slot that a row has, to tell whether it changed.
fn fingerprint(slot: &CountSlot) -> [i64; 21] {
    let mut numbers = [0; 21];
    let totals = [slot.established_total, slot.accepted_total, slot.closed_total];
    let all = slot.states.iter().copied().chain(slot.classes).chain(totals.map(u64::cast_signed));
    for (place, number) in numbers.iter_mut().zip(all) {
        *place = number;
    }
    numbers
}

/// How long ended connections may take from the kernel to us.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

const _: () = assert!(state::STATES + 6 + 3 == 21);
