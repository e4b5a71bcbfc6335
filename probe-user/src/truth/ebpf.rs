//! The exact source: our own programs in this host's kernel.

use std::{
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use aya::{
    Btf,
    maps::{Map, MapData, RingBuf},
};
use probe_common::{connection::Connection, key::CountSlot, loss::Stat};
use tokio::sync::mpsc::Receiver;

use super::{
    counters::Counters,
    records::Records,
    source::{Backend, Ended, Exactness, Source},
};
use crate::{
    identity::netns,
    kernel::{
        Unavailable,
        attach::{self, Attached, Options},
        seed::{self, Seeder},
        sys,
    },
};

/// Entries fetched from the connection map by one system call.
const CHUNK: u32 = 4096;

/// Losses that make counts inexact, in words.
const COUNT_LOSSES: [(Stat, &str); 3] = [
    (Stat::ConnectionMapFull, "connections were not counted: the connection map was full (raise --max-connections)"),
    (Stat::ConnectionInsertFailed, "connections were not counted: the kernel could not insert them"),
    (Stat::CountSlotsFull, "connections were not counted: too many containers × ports"),
];

/// Programs, maps and the record thread.
pub struct EbpfSource {
    counters: Counters,
    connections: MapData,
    records: Records,
    attached: Mutex<Attached>,
    hooks: Vec<String>,
    degraded: Vec<String>,
    /// Accepts are seen when they happen; otherwise walks note them.
    sharp_accepts: bool,
}

/// Attaches, then seeds: from the moment this returns, counts are exact.
///
/// # Errors
/// [`Unavailable`]: what this host lacks.
pub fn open(options: &Options) -> Result<Arc<EbpfSource>, Unavailable> {
    let mut attached = attach::attach(options)?;
    let mut degraded = std::mem::take(&mut attached.degraded);
    Btf::from_sys_fs()
        .map_err(anyhow::Error::from)
        .and_then(|btf| seed::load(&mut attached.ebpf, &btf))
        .map_err(|error| inside("load iter/tcp", &error))?;
    if !attached.taken_over {
        degraded.extend(walk_all(&mut attached).map_err(|error| inside("seed the counts", &error))?);
    }
    build(attached, degraded).map_err(|error| inside("open the maps", &error))
}

fn inside(what: &str, error: &anyhow::Error) -> Unavailable {
    Unavailable {
        what: what.into(),
        why: format!("{error:#}"),
        cure: "run `probe doctor` for what this host lacks".into(),
    }
}

fn build(mut attached: Attached, degraded: Vec<String>) -> anyhow::Result<Arc<EbpfSource>> {
    let mut take = |name: &str| {
        attached.ebpf.take_map(name).with_context(|| format!("the object file has no map {name}"))
    };
    let counters = Counters::new(take("COUNTS")?, take("STATISTICS")?)?;
    let Map::HashMap(connections) = take("CONNECTIONS")? else {
        anyhow::bail!("CONNECTIONS is not a hash map");
    };
    let ring = RingBuf::try_from(take("RECORDS")?)?;
    let mut hooks: Vec<String> = attached.hooks.iter().map(|running| running.hook.name()).collect();
    hooks.dedup();
    hooks.push("iter/tcp".into());
    Ok(Arc::new(EbpfSource {
        counters,
        connections,
        records: Records::start(ring)?,
        sharp_accepts: hooks.iter().any(|hook| hook == "fexit/inet_csk_accept"),
        attached: Mutex::new(attached),
        hooks,
        degraded,
    }))
}

/// Walks every network namespace; returns what could not be walked.
fn walk_all(attached: &mut Attached) -> anyhow::Result<Vec<String>> {
    let found = netns::find().context("cannot list network namespaces")?;
    let mut seeder = Seeder::loaded(&mut attached.ebpf)?;
    let mut failed = Vec::new();
    for namespace in &found.namespaces {
        if let Err(error) = seeder.walk(namespace) {
            failed.push(format!("connections from before the start are missing: {error:#}"));
        }
    }
    if found.unreadable > 0 {
        failed.push(format!(
            "{} processes' network namespaces could not be looked at",
            found.unreadable
        ));
    }
    Ok(failed)
}

impl EbpfSource {
    /// A loss or total of the kernel side.
    #[must_use]
    pub fn statistic(&self, which: Stat) -> u64 {
        self.counters.statistic(which)
    }

    /// Program runs that the kernel skipped because the program was running already. The second
    /// copy made them good.
    #[must_use]
    pub fn skipped_runs(&self) -> u64 {
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached
            .hooks
            .iter()
            .filter_map(|running| running.info().ok())
            .map(|info| info.recursion_misses)
            .sum()
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

    fn refresh_accepted(&self) -> anyhow::Result<()> {
        if self.sharp_accepts {
            return Ok(());
        }
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        walk_all(&mut attached).map(drop)
    }

    fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        sys::hash_values(self.connections.fd().as_fd(), CHUNK)
            .context("cannot read the connection map")
    }

    fn exactness(&self) -> anyhow::Result<Exactness> {
        let mut degraded = self.degraded.clone();
        let mut exact = true;
        for (stat, words) in COUNT_LOSSES {
            let lost = self.counters.statistic(stat);
            if lost > 0 {
                exact = false;
                degraded.push(format!("{lost} {words}"));
            }
        }
        let (undelivered, _) = self.records.totals();
        let lost = self.counters.statistic(Stat::RecordsLost) + undelivered;
        if lost > 0 {
            degraded.push(format!("{lost} connection records were lost: the consumer was too slow"));
        }
        Ok(Exactness { exact, detail_complete: lost == 0, degraded })
    }

    fn ended(&self) -> Option<Receiver<Ended>> {
        Some(self.records.listen())
    }
}
