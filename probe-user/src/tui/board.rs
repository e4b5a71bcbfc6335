//! The numbers behind the live view, fed by a running kernel or by a capture, and asked by the view.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    leg::{Key, Leg, STAGES},
    live::Update,
};
use crate::health::shards::ShardReport;

/// Seconds that a sparkline can show.
pub(crate) const HISTORY: usize = 300;
/// What percentiles are of: handshakes that ended in this time before now.
pub(crate) const WINDOW_NS: i64 = 60_000_000_000;
/// A rate over less says nothing: one connection in 40 ms would be 25 a second.
const MOMENT_NS: i64 = 500_000_000;
/// Failures that are kept for the list of the latest.
const LATEST: usize = 100;
/// Processes that are known of each service: workers of one server, or callers of one port.
const PIDS: usize = 256;
/// Addresses that are told apart of what one port is connected to; of more, none is.
pub(crate) const PEERS: usize = 64;

/// What connections are shown by: sums over cgroups of the same name. Those that share name, port and role stand
/// one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) container: String,
    pub(crate) port: u16,
    pub(crate) role: Cow<'static, str>,
    /// The network namespace of what is in no container, and so has no name of its own; else 0.
    #[serde(default)]
    pub(crate) netns: u32,
}

/// The counts of a service at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) established: i64,
    pub(crate) upgraded: i64,
    pub(crate) close_wait: i64,
    /// Over, but a process still holds the descriptor.
    pub(crate) closed_held: i64,
    pub(crate) listening: bool,
    /// Since the programs were attached.
    pub(crate) opened_total: u64,
    pub(crate) closed_total: u64,
    /// Network namespaces with sockets of it: more than one are shown as their sum.
    #[serde(default)]
    pub(crate) namespaces: usize,
}

impl Level {
    fn has_sockets(&self) -> bool {
        self.listening || self.established + self.close_wait + self.closed_held > 0
    }

    fn add(&mut self, other: &Self) {
        self.established += other.established;
        self.upgraded += other.upgraded;
        self.close_wait += other.close_wait;
        self.closed_held += other.closed_held;
        self.listening |= other.listening;
        self.opened_total += other.opened_total;
        self.closed_total += other.closed_total;
    }
}

/// The sum of each service, over populations with their network namespace.
pub(crate) fn sums(
    populations: impl Iterator<Item = (Service, u32, Level)>,
) -> Vec<(Service, Level)> {
    let mut sums: BTreeMap<Service, (Level, BTreeSet<u32>)> = BTreeMap::new();
    for (service, netns, level) in populations.filter(|(.., level)| *level != Level::default()) {
        let (sum, namespaces) = sums.entry(service).or_default();
        sum.add(&level);
        namespaces.extend(level.has_sockets().then_some(netns));
    }
    let counted = |(service, (sum, namespaces)): (_, (Level, BTreeSet<u32>))| {
        (service, Level { namespaces: namespaces.len(), ..sum })
    };
    sums.into_iter().map(counted).collect()
}

/// Attempts by how they ended, and how far they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) outcomes: BTreeMap<Cow<'static, str>, u64>,
    pub(crate) funnel: [u64; STAGES.len()],
    pub(crate) attempts: u64,
    pub(crate) failed: u64,
}

impl Tally {
    fn add(&mut self, leg: &Leg) {
        if !leg.is_attempt() {
            return;
        }
        self.attempts += 1;
        self.failed += u64::from(leg.is_failure());
        if let Some(outcome) = &leg.outcome {
            *self.outcomes.entry(outcome.clone()).or_insert(0) += 1;
        }
        for stage in &mut self.funnel[..leg.passed()] {
            *stage += 1;
        }
    }

    pub(crate) fn plus(mut self, other: &Self) -> Self {
        self.attempts += other.attempts;
        self.failed += other.failed;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_insert(0) += count;
        }
        for (stage, more) in self.funnel.iter_mut().zip(other.funnel) {
            *stage += more;
        }
        self
    }
}

/// Attempts, and when handshakes were done and how long they took (µs).
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) tally: Tally,
    pub(crate) times: VecDeque<(i64, u64)>,
}

impl Attempts {
    pub(crate) fn add(&mut self, leg: &Leg) {
        self.tally.add(leg);
        self.times.extend(leg.handshake());
    }

    /// Those that were done before.
    pub(crate) fn forget(&mut self, before_ns: i64) {
        self.times.retain(|(at, _)| *at >= before_ns);
    }
}

/// One service's numbers over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// When, and how many had been opened and closed: as many as rates are measured over.
    samples: VecDeque<(i64, u64, u64)>,
    /// New and ended connections a second, over the last interval.
    pub(crate) opened_rate: f64,
    pub(crate) closed_rate: f64,
    /// Established at each sample, oldest first.
    pub(crate) history: VecDeque<u64>,
    /// New connections a second at each sample.
    pub(crate) opened_history: VecDeque<u64>,
    /// Those that accepted or connected.
    pub(crate) pids: BTreeSet<u32>,
    /// Of connections that are over.
    ended: Attempts,
    /// The same by the address that was connected to, of one more than [`PEERS`] at the most.
    pub(crate) ended_at: BTreeMap<SocketAddr, Attempts>,
}

impl Line {
    fn take(&mut self, at_ns: i64, level: Level) {
        self.samples.push_back((at_ns, level.opened_total, level.closed_total));
        while self.samples.get(1).is_some_and(|(at, ..)| at_ns - at >= MOMENT_NS) {
            self.samples.pop_front();
        }
        let (from_ns, opened, closed) = self.samples[0];
        let seconds = (at_ns - from_ns) as f64 / 1e9;
        if seconds > 0.0 {
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            self.opened_rate = rate(level.opened_total, opened);
            self.closed_rate = rate(level.closed_total, closed);
        }
        self.level = level;
        push(&mut self.history, level.established.max(0).cast_unsigned());
        push(&mut self.opened_history, self.opened_rate.round() as u64);
    }

    fn meet(&mut self, pid: u32) {
        // Those that are still there are met again a second later.
        if self.pids.len() == PIDS && !self.pids.contains(&pid) {
            self.pids.clear();
        }
        if pid != 0 {
            self.pids.insert(pid);
        }
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

/// What a server said of itself, and the kernel's count over the time of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reported {
    pub(crate) url: String,
    /// The number, or why there is none.
    pub(crate) answer: Result<i64, String>,
    pub(crate) kernel_min: Option<i64>,
    pub(crate) kernel_max: Option<i64>,
    /// The services whose sum it is held against.
    pub(crate) services: Vec<Service>,
    /// What a balancer says of its shards.
    #[serde(default)]
    pub(crate) shards: Vec<ShardReport>,
}

impl Reported {
    /// Reported beyond the highest kernel count of the request's time.
    pub(crate) fn phantoms(&self) -> Option<i64> {
        Some((self.answer.as_ref().ok()? - self.kernel_max?).max(0))
    }

    /// Established below the lowest, and not reported.
    pub(crate) fn reverse(&self) -> Option<i64> {
        Some((self.kernel_min? - self.answer.as_ref().ok()?).max(0))
    }
}

/// A failed handshake, for the list of the latest.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) at_ns: i64,
    pub(crate) service: Arc<Service>,
    pub(crate) outcome: Cow<'static, str>,
    pub(crate) peer: String,
    pub(crate) stage: &'static str,
}

/// Everything the view can ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(crate) at_mono_ns: i64,
    pub(crate) at_unix_ns: i64,
    pub(crate) lines: BTreeMap<Service, Line>,
    pub(crate) reported: Vec<Reported>,
    /// What may be missing from the numbers; empty if nothing.
    pub(crate) degraded: Vec<String>,
    pub(crate) exact: bool,
    pub(crate) latest: VecDeque<Failure>,
    open: HashMap<Key, Leg>,
    /// Ended since the open ones were last asked for: a snapshot may still hold them.
    ended: HashSet<Key>,
}

impl Board {
    /// Takes in what a running kernel has to say.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(crate) fn apply(&mut self, update: Update) -> anyhow::Result<()> {
        match update {
            Update::Counts { at_mono_ns, unix_ns, levels, degraded, exact } => {
                self.count(at_mono_ns, unix_ns, levels);
                self.degraded = degraded;
                self.exact = exact;
            }
            Update::Open(legs) => self.take_open(legs),
            Update::Ended(legs) => self.take_ended(&legs),
            Update::Reported(reported) => self.take_reported(reported),
            Update::Listeners(found) => {
                for (service, pids) in found {
                    if let Some(line) = self.lines.get_mut(&service) {
                        pids.into_iter().for_each(|pid| line.meet(pid));
                    }
                }
            }
            // Rows of sockets are no numbers.
            Update::Connections(_) => {}
            Update::Failed(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn count(&mut self, at_mono_ns: i64, unix_ns: i64, levels: Vec<(Service, Level)>) {
        self.at_mono_ns = at_mono_ns;
        self.at_unix_ns = unix_ns;
        let mut levels: BTreeMap<Service, Level> = levels.into_iter().collect();
        for (service, line) in &mut self.lines {
            let level = levels.remove(service).unwrap_or(Level {
                opened_total: line.level.opened_total,
                closed_total: line.level.closed_total,
                ..Level::default()
            });
            line.take(at_mono_ns, level);
        }
        for (service, level) in levels {
            self.lines.entry(service).or_default().take(at_mono_ns, level);
        }
        for line in self.lines.values_mut() {
            let attempts = std::iter::once(&mut line.ended).chain(line.ended_at.values_mut());
            attempts.for_each(|attempts| attempts.forget(at_mono_ns - WINDOW_NS));
        }
    }

    /// The connections that are open now, instead of those of before.
    pub(crate) fn take_open(&mut self, open: impl IntoIterator<Item = Leg>) {
        let ended = std::mem::take(&mut self.ended);
        self.open = open
            .into_iter()
            .filter(|leg| !ended.contains(&leg.key))
            .map(|leg| (leg.key, leg))
            .collect();
        for leg in self.open.values() {
            if let Some(line) = self.lines.get_mut(&*leg.service) {
                line.meet(leg.pid);
            }
        }
    }

    pub(crate) fn take_ended(&mut self, ended: &[Leg]) {
        for leg in ended {
            self.open.remove(&leg.key);
            self.ended.insert(leg.key);
            if leg.is_failure() {
                if self.latest.len() == LATEST {
                    self.latest.pop_back();
                }
                self.latest.push_front(failure(leg));
            }
            if !leg.is_attempt() {
                continue;
            }
            let line = self.lines.entry((*leg.service).clone()).or_default();
            line.meet(leg.pid);
            line.ended.add(leg);
            if leg.service.role == "active"
                && (line.ended_at.len() <= PEERS || line.ended_at.contains_key(&leg.peer))
            {
                line.ended_at.entry(leg.peer).or_default().add(leg);
            }
        }
    }

    pub(crate) fn take_reported(&mut self, reported: Reported) {
        match self.reported.iter_mut().find(|known| known.url == reported.url) {
            Some(known) => *known = reported,
            None => self.reported.push(reported),
        }
    }

    /// Attempts of each service, since the view began, and those of connections that are open.
    pub(crate) fn tallies(&self) -> BTreeMap<&Service, Tally> {
        let mut open: BTreeMap<&Service, Tally> = BTreeMap::new();
        for leg in self.open.values() {
            open.entry(&leg.service).or_default().add(leg);
        }
        self.lines
            .iter()
            .map(|(service, line)| {
                let ended = line.ended.tally.clone();
                (
                    service,
                    match open.get(service) {
                        Some(open) => ended.plus(open),
                        None => ended,
                    },
                )
            })
            .collect()
    }

    /// Handshake times of the last minute per service, in microseconds, sorted.
    pub(crate) fn times(&self) -> BTreeMap<&Service, Vec<u64>> {
        let mut times: BTreeMap<&Service, Vec<u64>> = self
            .lines
            .iter()
            .map(|(service, line)| {
                (service, line.ended.times.iter().map(|&(_, took)| took).collect())
            })
            .collect();
        for leg in self.open.values() {
            if let Some((at, took)) = leg.handshake()
                && self.at_mono_ns - at <= WINDOW_NS
                && let Some(times) = times.get_mut(&*leg.service)
            {
                times.push(took);
            }
        }
        times.values_mut().for_each(|times| times.sort_unstable());
        times
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &Leg> {
        self.open.values()
    }

    /// What a service is called: with its network namespace where another has the same name, port and role.
    pub(crate) fn name(&self, service: &Service) -> String {
        let first = Service { netns: 0, ..service.clone() };
        let last = Service { netns: u32::MAX, ..service.clone() };
        if service.netns != 0 && self.lines.range(first..=last).nth(1).is_some() {
            format!("{} {}", service.container, service.netns)
        } else {
            service.container.clone()
        }
    }

    /// The report that a service is part of.
    pub(crate) fn reported_of(&self, service: &Service) -> Option<&Reported> {
        self.reported.iter().find(|reported| reported.services.contains(service))
    }
}

fn failure(leg: &Leg) -> Failure {
    Failure {
        at_ns: leg.last_ns(),
        service: Arc::clone(&leg.service),
        outcome: leg.outcome.clone().unwrap_or("unknown".into()),
        peer: leg.peer.to_string(),
        stage: leg.passed().checked_sub(1).map_or("none", |last| STAGES[last]),
    }
}

/// A value that was measured (nearest rank), of sorted ones.
pub(crate) fn percentile(sorted: &[u64], percent: f64) -> Option<u64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service { container: "web".into(), port: 3005, role: "passive".into(), netns: 0 }
    }

    fn leg(cookie: u64, outcome: &'static str, upgraded: bool) -> Leg {
        let at = |when: i64| Some(when * 1_000_000);
        let end: SocketAddr = "127.0.0.1:1".parse().unwrap();
        Leg {
            key: (cookie, 0, 1),
            service: Arc::new(service()),
            local: end,
            peer: end,
            state: "established".into(),
            class: "http".into(),
            outcome: Some(outcome.into()),
            stages: [at(1), at(2), at(3), at(4), at(6), at(7).filter(|_| upgraded), None],
            from_ns: 1,
            until_ns: None,
            retransmits: None,
            process: String::new(),
            pid: 0,
            asked: true,
        }
    }

    fn level(established: i64, opened_total: u64) -> Level {
        Level { established, opened_total, ..Level::default() }
    }

    #[test]
    fn an_attempt_is_counted_once_while_it_is_open_and_after() {
        let mut board = Board::default();
        board.count(8_000_000, 0, vec![(service(), level(3, 3))]);
        let open = [leg(1, "upgraded", true), leg(2, "upgraded", true), leg(3, "open", false)];
        board.take_open(open.clone());
        let tally = &board.tallies()[&service()];
        assert_eq!((tally.attempts, tally.failed, tally.funnel[5]), (3, 0, 2));
        assert_eq!(board.times()[&service()], [6_000, 6_000]);

        board.take_ended(&[leg(2, "upgraded", true), leg(3, "http_503", false)]);
        // A snapshot that was made before they ended says that they are open.
        board.take_open(open);
        let tally = &board.tallies()[&service()];
        assert_eq!((tally.attempts, tally.failed), (3, 1));
        assert_eq!(tally.outcomes["http_503"], 1);
        assert_eq!(tally.funnel, [3, 3, 3, 3, 3, 2, 0]);
        assert_eq!(board.latest[0].stage, "response_sent");
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let mut board = Board::default();
        board.count(1_000_000_000, 0, vec![(service(), level(10, 100))]);
        assert_eq!(board.lines[&service()].opened_rate, 0.0);
        board.count(3_000_000_000, 0, vec![(service(), level(23, 123))]);
        assert_eq!(board.lines[&service()].opened_rate, 11.5);
        // The rest of a capture's last second.
        let mut rest = board.clone();
        rest.count(3_040_000_000, 0, vec![(service(), level(24, 124))]);
        assert!((rest.lines[&service()].opened_rate - 24.0 / 2.04).abs() < 1e-9);
        // A service that is gone has no sockets, and opens none.
        board.count(4_000_000_000, 0, vec![]);
        assert_eq!(board.lines[&service()].level.established, 0);
        assert_eq!(board.lines[&service()].opened_rate, 0.0);
    }

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 50.0), Some(50));
        assert_eq!(percentile(&values, 99.0), Some(99));
        assert_eq!(percentile(&[7], 99.0), Some(7));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn only_what_lies_outside_the_bracket_is_a_phantom() {
        let reported = |answer| Reported {
            url: "http://x/".into(),
            answer: Ok(answer),
            kernel_min: Some(20),
            kernel_max: Some(23),
            services: vec![],
            shards: vec![],
        };
        assert_eq!((reported(30).phantoms(), reported(30).reverse()), (Some(7), Some(0)));
        assert_eq!((reported(21).phantoms(), reported(21).reverse()), (Some(0), Some(0)));
        assert_eq!((reported(-1).phantoms(), reported(-1).reverse()), (Some(0), Some(21)));
    }
}
