//! Gives counters back. There are so many, and a host may see more containers and ports than that in its life: a
//! port scan in a second, restarts of containers in a month.
//!
//! A total does not fall by it; it may end. By *service* is meant what metrics tell apart: container by name, port
//! and role. All counters of a service go at once, when no socket has been counted in them for a while. Of one that
//! lives on, those of gone cgroups become one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use aya_obj::generated::BPF_NOEXIST;
use probe_common::{
    connection::Connection,
    key::{CountKey, CountSlot, SLOTS},
    loss::Stat,
};

use super::counters::Counters;
use crate::{
    identity::{
        Identity,
        cgroup::{self, Mounted},
        netns,
    },
    kernel::sys,
};

/// Up to so many populations are kept, idle or not.
const KEPT: u64 = 1024;
/// How long an idle service is kept: long enough for who asks for metrics seldom, or a few seconds once more than half
/// of all counters are in use.
const PATIENCE: Duration = Duration::from_mins(5);
const PATIENCE_IN_NEED: Duration = Duration::from_secs(4);

/// Whose counters are which.
pub struct Reclaim {
    slot_of: BpfHashMap<MapData, CountKey, u32>,
    /// The program that makes a counter nobody's.
    give_back: OwnedFd,
    /// Populations without a socket at the last look, by the index of their counters.
    idle: HashMap<u32, Idle>,
}

/// A population in which nothing has happened for a while.
#[derive(Clone, Copy, Debug)]
struct Idle {
    key: CountKey,
    closed_total: u64,
    since: Instant,
}

/// Container by name, its runtime, port, role.
type Service = (String, &'static str, u16, u8);

/// What can be given back of a service.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// All that there is of it.
    All(Vec<u32>),
    /// The others' totals are added to those of the first.
    Into(u32, Vec<u32>),
}

impl Step {
    fn indexes(&self) -> &[u32] {
        match self {
            Self::All(indexes) | Self::Into(_, indexes) => indexes,
        }
    }

    /// One counter after the other, each with the one that its totals are added to. The agent may be killed between any
    /// two: a service has all of its totals until its last counter goes.
    fn calls(&self) -> Vec<(u32, u32)> {
        match self {
            Self::All(indexes) => {
                let others = indexes.iter().skip(1).map(|index| (*index, indexes[0]));
                others.chain(indexes.first().map(|last| (*last, Connection::NO_SLOT))).collect()
            }
            Self::Into(first, others) => others.iter().map(|index| (*index, *first)).collect(),
        }
    }
}

impl Reclaim {
    /// # Errors
    /// Where the maps are not what they should be.
    pub fn new(slot_of: Map, give_back: OwnedFd) -> anyhow::Result<Self> {
        Ok(Self { slot_of: BpfHashMap::try_from(slot_of)?, give_back, idle: HashMap::new() })
    }

    /// Looks once. `held` tells the indexes that connections are counted by.
    ///
    /// # Errors
    /// As bpf(2), membarrier(2), and where cgroups or namespaces can't be listed.
    pub fn look(
        &mut self,
        counters: &Counters,
        identity: &Identity,
        held: impl FnOnce() -> anyhow::Result<HashSet<u32>>,
    ) -> anyhow::Result<()> {
        if counters.statistic(Stat::SlotsInUse) <= KEPT {
            self.idle.clear();
            return Ok(());
        }
        let populations = counters.numbered();
        let alive = Alive::find()?;
        let service = |key: &CountKey| {
            let container = identity.of(key);
            (container.name, container.runtime.name(), key.port, key.role)
        };
        let in_need = counters.statistic(Stat::SlotsInUse) > u64::from(SLOTS / 2);
        let patience = if in_need { PATIENCE_IN_NEED } else { PATIENCE };
        self.idle = still_idle(&populations, &self.idle, Instant::now());
        let is_over =
            |index| self.idle.get(&index).is_some_and(|idle| idle.since.elapsed() >= patience);
        let steps = plan(&populations, is_over, |key| alive.has(key), service);
        if steps.is_empty() {
            return Ok(());
        }
        ensure!(
            sys::can_wait_for_programs(),
            "counters of services that are over are not given back: this kernel has no membarrier for all CPUs \
             (nohz_full)"
        );
        self.give_back(counters, &populations, &steps, held)
    }

    /// First nobody finds these counters any more; then all who had found them have counted. Those that no socket is
    /// counted in from then on stay so; and once all who took a socket out are through with them, they are free.
    fn give_back(
        &mut self,
        counters: &Counters,
        populations: &[(u32, CountSlot)],
        steps: &[Step],
        held: impl FnOnce() -> anyhow::Result<HashSet<u32>>,
    ) -> anyhow::Result<()> {
        let key_of: HashMap<u32, CountKey> = populations
            .iter()
            .map(|(index, slot)| (*index, CountKey { ready: 0, ..slot.key }))
            .collect();
        let mut unlinked = Vec::new();
        for index in steps.iter().flat_map(Step::indexes) {
            // Others may have been made meanwhile for who came while these were unlinked.
            if self.slot_of.get(&key_of[index], 0).is_ok_and(|linked| linked == *index) {
                self.slot_of.remove(&key_of[index]).context("cannot take counters back")?;
                unlinked.push(*index);
            }
        }
        let idle = wait_for_programs()
            .and_then(|()| {
                let held = held()?;
                wait_for_programs()?;
                Ok(held)
            })
            .map(|held| {
                let is_free =
                    |(index, slot): &(u32, CountSlot)| is_idle(slot) && !held.contains(index);
                let populations = counters.numbered();
                populations.iter().filter(|each| is_free(each)).map(|(index, _)| *index).collect()
            });
        let none = HashSet::new();
        let steps = confirm(steps, idle.as_ref().unwrap_or(&none));
        let closed = steps.iter().try_for_each(|step| counters.unseen(|| self.close(step)));
        let is_closed: HashSet<u32> = steps.iter().flat_map(Step::indexes).copied().collect();
        for index in unlinked.iter().filter(|index| !is_closed.contains(index)) {
            // A socket came. Where others were made for it, these are given back once it is gone.
            let _ = self.slot_of.insert(key_of[index], index, u64::from(BPF_NOEXIST));
        }
        idle.and(closed)
    }

    fn close(&mut self, step: &Step) -> anyhow::Result<()> {
        for (index, into) in step.calls() {
            let argument = u64::from(index) | u64::from(into) << 32;
            sys::run_program(self.give_back.as_fd(), &[argument])
                .context("cannot give counters back")?;
            self.idle.remove(&index);
        }
        Ok(())
    }
}

/// No socket is counted, in whatever state.
fn is_idle(slot: &CountSlot) -> bool {
    slot.states.iter().all(|count| *count == 0)
}

/// Those that were idle before and have seen no connection since keep their time.
fn still_idle(
    populations: &[(u32, CountSlot)],
    before: &HashMap<u32, Idle>,
    now: Instant,
) -> HashMap<u32, Idle> {
    let idle = populations.iter().filter(|(_, slot)| is_idle(slot));
    idle.map(|(index, slot)| {
        let same = |idle: &&Idle| idle.key == slot.key && idle.closed_total == slot.closed_total;
        let since = before.get(index).filter(same).map_or(now, |idle| idle.since);
        (*index, Idle { key: slot.key, closed_total: slot.closed_total, since })
    })
    .collect()
}

/// By service, and so in the same order each time. `is_over`: idle for long enough.
fn plan(
    populations: &[(u32, CountSlot)],
    is_over: impl Fn(u32) -> bool,
    is_alive: impl Fn(&CountKey) -> bool,
    service: impl Fn(&CountKey) -> Service,
) -> Vec<Step> {
    let mut services: BTreeMap<Service, Vec<&(u32, CountSlot)>> = BTreeMap::new();
    for population in populations {
        services.entry(service(&population.1.key)).or_default().push(population);
    }
    let steps = services.values().filter_map(|members| {
        if members.iter().all(|(index, _)| is_over(*index)) {
            return Some(Step::All(members.iter().map(|(index, _)| *index).collect()));
        }
        let mut gone = members
            .iter()
            .filter(|(_, slot)| is_idle(slot) && !is_alive(&slot.key))
            .map(|(index, _)| *index);
        let first = gone.next()?;
        let others: Vec<u32> = gone.collect();
        (!others.is_empty()).then_some(Step::Into(first, others))
    });
    steps.collect()
}

/// What of these steps can be done, where those of `idle` alone may be given back.
fn confirm(steps: &[Step], idle: &HashSet<u32>) -> Vec<Step> {
    let steps = steps.iter().filter_map(|step| match step {
        Step::All(members) => {
            members.iter().all(|index| idle.contains(index)).then(|| Step::All(members.clone()))
        }
        Step::Into(first, others) => {
            let others = others.iter().filter(|index| idle.contains(index)).copied().collect();
            Some(Step::Into(*first, others))
        }
    });
    steps.collect()
}

/// Cgroups and namespaces that are there now.
struct Alive {
    /// `None` without cgroup2, where a namespace is all that tells.
    cgroups: Option<HashSet<u64>>,
    namespaces: HashSet<u32>,
}

impl Alive {
    fn find() -> anyhow::Result<Self> {
        let mounted = Mounted::find().context("cannot read the mounts")?;
        let namespaces = netns::find().context("cannot list network namespaces")?.namespaces;
        Ok(Self {
            cgroups: mounted.path().map(|path| cgroup::walk(path).into_keys().collect()),
            namespaces: namespaces.iter().map(|namespace| namespace.inode).collect(),
        })
    }

    fn has(&self, key: &CountKey) -> bool {
        let has_cgroup = self.cgroups.as_ref().is_none_or(|ids| ids.contains(&key.cgroup_id));
        has_cgroup && self.namespaces.contains(&key.netns)
    }
}

fn wait_for_programs() -> anyhow::Result<()> {
    sys::wait_for_programs().context("cannot wait for the kernel programs (membarrier)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(index: u32, cgroup_id: u64, port: u16, sockets: i64) -> (u32, CountSlot) {
        let key = CountKey { cgroup_id, netns: 1, port, role: 2, ready: 1 };
        let mut slot = CountSlot { key, closed_total: 7, ..CountSlot::default() };
        slot.states[6] = sockets;
        (index, slot)
    }

    fn service(key: &CountKey) -> Service {
        // Cgroups 10 and above are one container, started again and again.
        let name = if key.cgroup_id >= 10 { "web".into() } else { key.cgroup_id.to_string() };
        (name, "docker", key.port, key.role)
    }

    fn planned(populations: &[(u32, CountSlot)], over: &[u32], alive: &[u64]) -> Vec<Step> {
        let is_alive = |key: &CountKey| alive.contains(&key.cgroup_id);
        plan(populations, |index| over.contains(&index), is_alive, service)
    }

    #[test]
    fn idle_is_who_sees_no_connection() {
        let (then, now) = (Instant::now(), Instant::now() + PATIENCE);
        let before = [population(0, 1, 80, 0), population(1, 1, 81, 0), population(2, 1, 82, 0)];
        let idle = still_idle(&before, &HashMap::new(), then);
        let mut after = [before[0], before[1], population(2, 1, 82, 3)];
        after[1].1.closed_total += 1; // one came and went
        let idle = still_idle(&after, &idle, now);
        let since: BTreeMap<u32, Instant> =
            idle.into_iter().map(|(index, idle)| (index, idle.since)).collect();
        assert_eq!(since, BTreeMap::from([(0, then), (1, now)]));
    }

    #[test]
    fn a_service_that_is_over_ends_as_a_whole() {
        let populations = [
            population(0, 1, 80, 0),
            population(1, 10, 80, 0),
            population(2, 11, 80, 0),
            population(3, 12, 81, 0),
        ];
        assert_eq!(
            planned(&populations, &[0, 1, 3], &[1, 10, 11, 12]),
            [Step::All(vec![0]), Step::All(vec![3])]
        );
    }

    #[test]
    fn totals_of_a_service_that_lives_on_come_together() {
        let populations = [
            population(0, 10, 80, 0),
            population(1, 11, 80, 0),
            population(2, 12, 80, 1), // a socket outlives its cgroup
            population(3, 13, 80, 0),
            population(4, 14, 80, 5),
        ];
        let steps = planned(&populations, &[0, 1, 3], &[14]);
        assert_eq!(steps, [Step::Into(0, vec![1, 3])]);
        assert_eq!(confirm(&steps, &HashSet::from([0, 3])), [Step::Into(0, vec![3])]);
        // One of them alone stays as it is.
        assert_eq!(planned(&populations[3..], &[3], &[14]), []);
    }

    #[test]
    fn totals_of_a_service_are_whole_until_its_last_counter_goes() {
        for step in [Step::All(vec![3, 4, 5]), Step::Into(6, vec![3, 4, 5])] {
            let mut totals = BTreeMap::from([(3, 23), (4, 5), (5, 41), (6, 0)]);
            for (index, into) in step.calls() {
                let total = totals.remove(&index).unwrap();
                if let Some(other) = totals.get_mut(&into) {
                    *other += total;
                }
                let is_over = matches!(step, Step::All(_)) && totals.len() == 1;
                let left = if is_over { 0 } else { 69 };
                assert_eq!(totals.values().sum::<i32>(), left, "{step:?} after {index}");
            }
            assert_eq!(totals.len(), 1, "{step:?}");
        }
    }

    #[test]
    fn a_socket_that_came_meanwhile_keeps_its_service() {
        let steps = [Step::All(vec![3, 4]), Step::All(vec![5])];
        assert_eq!(confirm(&steps, &HashSet::from([3, 5])), [Step::All(vec![5])]);
    }
}
