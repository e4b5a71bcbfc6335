//! The exact source: our own programs in this host's kernel.

use std::{
    collections::{HashMap, HashSet},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::maps::{Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use probe_common::{
    connection::Connection,
    handshake::Pair,
    key::{CountKey, CountSlot},
    loss::Stat,
    state::{self, role},
};
use tokio::sync::mpsc::Receiver;

use super::{
    audit::{self, Audit},
    audits::{self, Audits},
    counters::Counters,
    leftovers::Leftovers,
    losses::{Losses, Told},
    pending::{GIVE_UP, Pending},
    reclaim::Reclaim,
    records::Records,
    seed,
    sock_diag::{self, Detail},
    sockstat,
    source::{Backend, Ended, Exactness, Source},
};
use crate::{
    clock,
    handshake::follow::Observed,
    identity::{
        Identity,
        netns::{Found, Netns},
        netns_handle::Remembered,
    },
    kernel::{
        Unavailable,
        attach::{self, Attached, Options, Running},
        cost::{self, HookCost},
        log::{self, ToStderr},
        pin::Pins,
        sys, walk,
    },
    memory,
};

/// Entries fetched from the connection map by one system call.
const CHUNK: u32 = 4096;

/// The hook that follows handshakes of which there is no connection yet.
const HANDSHAKES: &str = "cgroup_skb/ingress";

/// What the kernel side counts of itself.
const VITALS: [(&str, Stat); 14] = [
    ("records_submitted", Stat::RecordsSubmitted),
    ("records_lost", Stat::RecordsLost),
    ("stray_syns", Stat::StraySyns),
    ("payloads_lost", Stat::PayloadLost),
    ("handshake_map_full", Stat::HandshakeMapFull),
    ("connection_map_full", Stat::ConnectionMapFull),
    ("connection_insert_failed", Stat::ConnectionInsertFailed),
    ("count_slots_full", Stat::CountSlotsFull),
    ("cgroup_unknown", Stat::CgroupUnknown),
    ("caught_up", Stat::CaughtUp),
    ("found_late", Stat::FoundLate),
    ("stale_healed", Stat::StaleHealed),
    ("destroy_healed", Stat::DestroyHealed),
    ("forgotten", Stat::Forgotten),
];

/// What has noticed a missed event; the kernel leaves out many at a time.
const REPAIRS: [Stat; 4] =
    [Stat::CaughtUp, Stat::FoundLate, Stat::StaleHealed, Stat::DestroyHealed];

/// How long a walk is good for where no sign speaks against it: a bit less than the time between the
/// walks of an agent, so that those are made.
const SETTLED_FOR: Duration = Duration::from_secs(4);

/// What changes when there may be something for a walk to note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signs {
    repairs: u64,
    /// Passive connections that were established, less those that were seen accepted.
    waiting: i64,
}

/// The last walk.
struct Settled {
    at: Instant,
    signs: Signs,
}

/// One walk over the host's sockets.
struct Walk {
    number: u32,
    started_ns: u64,
    namespaces: HashMap<u32, Netns>,
}

/// Programs, maps and the record thread.
pub struct EbpfSource {
    counters: Counters,
    connections: MapData,
    records: Records,
    /// Held for as long as a walk takes.
    attached: Mutex<Attached>,
    pins: Option<Pins>,
    running: Vec<Arc<Running>>,
    /// Names of what runs.
    hooks: Vec<String>,
    degraded: Vec<String>,
    /// Why what was there before the start is not counted, for each namespace that could not be walked.
    unseeded: Vec<String>,
    counts_only: bool,
    opened: Instant,
    losses: Losses,
    audits: Mutex<Audits>,
    remembered: Mutex<Remembered>,
    settled: Mutex<Option<Settled>>,
    reclaim: Mutex<Reclaim>,
    leftovers: Mutex<Leftovers>,
    /// What the kernel programs have to say.
    log: Mutex<Option<EbpfLogger<ToStderr>>>,
}

/// Attaches, then seeds: from the moment this returns, counts are exact.
///
/// # Errors
/// [`Unavailable`]: what this host lacks.
pub fn open(options: &Options) -> Result<Arc<EbpfSource>, Unavailable> {
    let btf = attach::types()?;
    let (mut attached, pins) = attach::attach(options, &btf)?;
    let mut degraded = attached.degraded();
    for inherited in &attached.inherited {
        eprintln!("probe: {inherited}");
    }
    degraded.extend(attached.inherited.iter().cloned());
    if options.counts_only {
        degraded.push("counts only, as asked: no stages, classes or records of connections".into());
    }
    walk::load(&mut attached.ebpf, &btf).map_err(|error| inside("load iter/tcp", &error))?;
    drop(btf);
    let mut unseeded = Vec::new();
    if !attached.taken_over {
        let unseen =
            seed::walk_all(&mut attached).map_err(|error| inside("seed the counts", &error))?;
        degraded.extend(unseen.processes_words());
        unseeded = unseen.namespaces_words();
    }
    let source = build(attached, pins, degraded, unseeded, options.counts_only)
        .map_err(|error| inside("open the maps", &error))?;
    if let Some(pins) = &source.pins {
        // Only now is the set worth taking over, and the programs of another build are not needed.
        let replaced = pins
            .complete()
            .map_err(|error| inside("complete the pins", &anyhow::Error::from(error)))?;
        for build in replaced {
            eprintln!(
                "probe: replaced the programs of another build ({build}); counts were seeded anew"
            );
        }
    }
    // From now on a socket that no event has shown is one whose birth was missed.
    source.counters.next_walk();
    keep(&source).map_err(|error| inside("start the keeper", &anyhow::Error::from(error)))?;
    // Of the kernel's types, which were read to attach, nothing is needed any more.
    memory::give_back();
    Ok(source)
}

/// Settles and audits every few seconds, as long as the source lives.
fn keep(source: &Arc<EbpfSource>) -> std::io::Result<()> {
    let source = Arc::downgrade(source);
    thread::Builder::new().name("keeper".into()).spawn(move || {
        let mut pause = audits::EVERY;
        loop {
            thread::sleep(pause);
            let Some(source) = source.upgrade() else { return };
            let started = Instant::now();
            let found = source.keep_round();
            pause = audits::pause_after(found.as_ref().ok(), started.elapsed());
            source.audits().take(found, pause);
            memory::give_back();
        }
    })?;
    Ok(())
}

fn inside(what: &str, error: &anyhow::Error) -> Unavailable {
    Unavailable {
        what: what.into(),
        why: format!("{error:#}"),
        cure: "run `probe doctor` for what this host lacks".into(),
    }
}

fn build(
    mut attached: Attached,
    pins: Option<Pins>,
    degraded: Vec<String>,
    unseeded: Vec<String>,
    counts_only: bool,
) -> anyhow::Result<Arc<EbpfSource>> {
    let log = log::open(&mut attached.ebpf);
    let give_back = walk::give_back(&mut attached.ebpf)?;
    let mut take = |name: &str| {
        attached.ebpf.take_map(name).with_context(|| format!("the object file has no map {name}"))
    };
    let counters = Counters::new(take("COUNTS")?, take("STATISTICS")?)?;
    let reclaim = Reclaim::new(take("SLOT_OF")?, give_back)?;
    let Map::HashMap(connections) = take("CONNECTIONS")? else {
        anyhow::bail!("CONNECTIONS is not a hash map");
    };
    let pending = Pending::new(take("HANDSHAKES")?)?;
    let leftovers = Leftovers::new(take("CLAIMS")?, take("LISTENERS")?)?;
    let ring = RingBuf::try_from(take("RECORDS")?)?;
    let mut hooks: Vec<String> = attached.hooks.iter().map(|running| running.hook.name()).collect();
    hooks.dedup();
    hooks.push("iter/tcp".into());
    Ok(Arc::new(EbpfSource {
        losses: Losses::since_now(&counters, attached.taken_over),
        counters,
        connections,
        records: Records::start(ring, pending)?,
        running: attached.hooks.clone(),
        attached: Mutex::new(attached),
        pins,
        hooks,
        degraded,
        unseeded,
        counts_only,
        opened: Instant::now(),
        audits: Mutex::new(Audits::expected_in(audits::EVERY)),
        remembered: Mutex::default(),
        settled: Mutex::default(),
        reclaim: Mutex::new(reclaim),
        leftovers: Mutex::new(leftovers),
        log: Mutex::new(log),
    }))
}

/// Sockets whose port had no counter.
fn portless(slots: &[CountSlot]) -> i64 {
    let without = slots.iter().filter(|slot| slot.key.port == CountKey::OTHER_PORTS);
    without.flat_map(|slot| slot.states).sum()
}

impl EbpfSource {
    fn each_held(&self, mut visit: impl FnMut(Connection)) -> anyhow::Result<()> {
        let map = self.connections.fd().as_fd();
        sys::each_entry(map, CHUNK, |_: u64, connection| visit(connection))
            .context("cannot read the connection map")
    }

    fn signs(&self) -> Signs {
        let repairs = REPAIRS.iter().map(|&stat| self.counters.statistic(stat)).sum();
        let waiting = |slot: &CountSlot| {
            slot.established_total.wrapping_sub(slot.accepted_total).cast_signed()
        };
        let slots = self.counters.slots();
        let passive = slots.iter().filter(|slot| slot.key.role == role::PASSIVE);
        Signs { repairs, waiting: passive.map(waiting).sum() }
    }

    fn walk_now(&self, attached: &mut Attached) -> anyhow::Result<()> {
        let started_ns = clock::mono_ns().unsigned_abs();
        let number = self.counters.next_walk();
        let mut namespaces = HashMap::new();
        let sockets = audit::sockets(&self.counters.slots());
        for namespace in self.find(&sockets)?.namespaces {
            if !sockets.contains_key(&namespace.inode)
                && sockstat::is_empty(&namespace).unwrap_or(false)
            {
                continue;
            }
            // Where a walk fails the audit tells what that costs.
            if walk::walk(&mut attached.ebpf, &namespace).is_ok() {
                namespaces.insert(namespace.inode, namespace);
            }
        }
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        leftovers.tidy(number, &namespaces, &sockets)?;
        self.forget_missing(attached, &Walk { number, started_ns, namespaces })
    }

    fn lost(&self) -> Told {
        let (undelivered, _) = self.records.totals();
        self.losses.look(&self.counters, undelivered)
    }

    fn keep_round(&self) -> anyhow::Result<Audit> {
        // So that a loss has its time also while nobody asks.
        self.lost();
        let settled = self.settle();
        if let Some(log) = self.log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.flush();
        }
        let followed = || {
            let mut followed = HashSet::new();
            self.each_held(|connection| {
                followed.insert(Pair::of(&connection));
            })?;
            Ok(followed)
        };
        let forgotten =
            self.records.forget_lost(self.counters.statistic(Stat::RecordsLost), followed);
        settled.and(forgotten)?;
        let audit = audit::audit(self, |sockets| self.find(sockets))?;
        if !audit.is_clean() {
            // The next round walks again, however fresh this one is.
            *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(audit)
    }

    /// Every network namespace, and those in which only sockets that we count are left.
    fn find(&self, sockets: &HashMap<u32, i64>) -> anyhow::Result<Found> {
        let counted = sockets.keys().copied().collect();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.find(&counted).context("cannot list network namespaces")
    }

    fn audits(&self) -> MutexGuard<'_, Audits> {
        self.audits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends entries that `walk` should have met and did not, if sock_diag does not list their
    /// sockets either (a walk may skip sockets while its hash bucket changes). It takes a CLOSE and
    /// a destruction that were both skipped to leave such an entry.
    fn forget_missing(&self, attached: &mut Attached, walk: &Walk) -> anyhow::Result<()> {
        let mut missing: HashMap<u32, Vec<Connection>> = HashMap::new();
        self.each_held(|connection| {
            let met = connection.walk >= walk.number
                || connection.first_seen_ns >= walk.started_ns
                || connection.state == state::CLOSE;
            if !met {
                missing.entry(connection.netns).or_default().push(connection);
            }
        })?;
        for (netns, connections) in missing {
            let Some(namespace) = walk.namespaces.get(&netns) else { continue };
            let (mut cookies, mut ports) = (HashSet::new(), HashSet::new());
            sock_diag::each(namespace, Detail::Basic, |socket| {
                // A mini socket has its connection's cookie, and is what is left of it.
                if !socket.is_mini {
                    cookies.insert(socket.cookie);
                    ports.insert((socket.local_port, socket.remote_port));
                }
            })?;
            // Before 5.12 a socket has no cookie until it is listed, so an entry may be without.
            let is_listed = |entry: &Connection| match entry.cookie {
                0 => ports.contains(&(entry.local_port, entry.remote_port)),
                cookie => cookies.contains(&cookie),
            };
            for connection in connections.iter().filter(|entry| !is_listed(entry)) {
                walk::forget(attached, connection, walk.number)?;
            }
        }
        Ok(())
    }

    /// Program runs that the kernel skipped because the program was running already, as far as it
    /// counts them.
    fn skipped_runs(&self) -> Option<u64> {
        // To ask takes CAP_SYS_ADMIN: what is not known is left out.
        self.running.iter().map(|hook| Some(hook.info().ok()?.recursion_misses)).sum()
    }
}

impl Source for EbpfSource {
    fn backend(&self) -> Backend {
        Backend::Ebpf
    }

    fn hooks(&self) -> Vec<String> {
        self.hooks.clone()
    }

    fn slots(&self) -> anyhow::Result<Vec<CountSlot>> {
        Ok(self.counters.slots())
    }

    fn settle(&self) -> anyhow::Result<()> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before a walk, so that what changes while it goes on is a sign for the next.
        let (at, signs) = (Instant::now(), self.signs());
        let is_fresh = |last: &Settled| last.at.elapsed() < SETTLED_FOR && last.signs == signs;
        if settled.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        self.walk_now(&mut attached)?;
        *settled = Some(Settled { at, signs });
        Ok(())
    }

    fn reclaim(&self, identity: &Identity) -> anyhow::Result<()> {
        let held = || {
            let mut held = HashSet::new();
            self.each_held(|connection| {
                held.insert(connection.slot);
            })?;
            Ok(held)
        };
        let mut reclaim = self.reclaim.lock().unwrap_or_else(PoisonError::into_inner);
        reclaim.look(&self.counters, identity, held)
    }

    fn connections(&self) -> anyhow::Result<Vec<Observed>> {
        let mut connections = Vec::new();
        self.each_held(|connection| connections.push(connection))?;
        Ok(self.records.observe(connections))
    }

    fn pending(&self) -> anyhow::Result<Vec<Observed>> {
        self.records.pending()
    }

    fn may_have_pending(&self) -> bool {
        let follows = self.hooks.iter().any(|hook| hook == HANDSHAKES) && !self.counts_only;
        // Those that began before the programs are over by then.
        let knows = follows && self.opened.elapsed() > GIVE_UP;
        !knows
            || self.counters.statistic(Stat::HandshakeMapFull) > 0
            || !self.records.has_no_pending()
    }

    fn exactness(&self) -> anyhow::Result<Exactness> {
        let lost = self.lost();
        let detail_complete = lost.of_detail.is_empty() && !self.counts_only;
        let judged = self.audits().judge(Instant::now());
        let mut inexact = self.unseeded.clone();
        inexact.extend(lost.of_counts);
        inexact.extend(judged.inexact);
        let portless = portless(&self.counters.slots());
        if portless > 0 {
            inexact.push(format!(
                "{portless} sockets are counted in their container, but without their port: more ports are in use at \
                 once than there are counters"
            ));
        }
        let mut degraded = inexact.clone();
        degraded.extend(self.degraded.iter().cloned());
        degraded.extend(judged.uncertain);
        degraded.extend(self.pins.as_ref().and_then(Pins::removed));
        degraded.extend(lost.of_detail);
        Ok(Exactness { exact: inexact.is_empty(), detail_complete, degraded, inexact })
    }

    fn vitals(&self) -> Vec<(String, i64)> {
        let (undelivered, delivered) = self.records.totals();
        let mut vitals = vec![
            ("records_delivered", delivered.cast_signed()),
            ("records_undelivered", undelivered.cast_signed()),
        ];
        if let Some(skipped) = self.skipped_runs() {
            vitals.push(("skipped_runs", skipped.cast_signed()));
        }
        for (name, stat) in VITALS {
            vitals.push((name, self.counters.statistic(stat).cast_signed()));
        }
        let in_use = self.counters.statistic(Stat::SlotsInUse);
        vitals.push(("count_slots_in_use", in_use.cast_signed()));
        vitals.extend(self.audits().vitals());
        vitals.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn costs(&self) -> Vec<HookCost> {
        cost::of(&self.running)
    }

    fn ended(&self) -> Option<Receiver<Ended>> {
        (!self.counts_only).then(|| self.records.listen())
    }
}
