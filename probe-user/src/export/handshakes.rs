//! Handshakes as metrics: how many ended in which way, and how long those took that were upgraded.
//!
//! Each is told once: when its connection is over or, once it is upgraded, by a look at the open
//! connections when somebody asks for the metrics. What was over before the agent started is left out.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use probe_common::{connection::flag, key::CountKey, state::role};

use super::{json::key_of, spread::Spread};
use crate::{
    clock,
    handshake::{
        follow::{Observed, flag as http},
        outcome::{Sight, Signs, is_attempt, lived_until, outcome},
    },
    truth::source::Source,
};

/// What a handshake passes after its SYN.
pub(crate) const STAGES: [&str; 4] = ["established", "accepted", "request_received", "upgraded"];

/// Services that are told apart; whoever comes later is counted as [`OTHERS`].
const MOST: usize = 256;
pub(crate) const OTHERS: CountKey =
    CountKey { cgroup_id: 0, netns: 0, port: 0, role: role::UNKNOWN, ready: 1 };

/// Between two looks at the open connections at least, and how much of the time they may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_SHARE: u32 = 20;

/// Handshakes of one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) outcomes: BTreeMap<Cow<'static, str>, u64>,
    /// From the SYN to the answer 101.
    pub(crate) whole: Spread,
    /// By [`STAGES`]: `established` since the SYN, `accepted` and `request_received` since
    /// `established`, `upgraded` since the request.
    pub(crate) stages: [Spread; STAGES.len()],
}

impl Tally {
    fn take(&mut self, observed: &Observed, word: Cow<'static, str>) {
        if word == "upgraded" {
            // What is an upper bound is no duration, nor has it an end.
            let sharp = |ns, bound| if observed.flags & bound == 0 { ns } else { 0 };
            let syn_ns = if observed.role == role::ACTIVE {
                sharp(observed.first_seen_ns, flag::ESTABLISHED_UPPER_BOUND)
            } else {
                observed.syn_received_ns
            };
            let established_ns = sharp(observed.established_ns, flag::ESTABLISHED_UPPER_BOUND);
            let accepted_ns = sharp(observed.accepted_ns, flag::ACCEPTED_UPPER_BOUND);
            self.whole.observe(syn_ns, observed.upgraded_ns);
            let stages = [
                (syn_ns, established_ns),
                (established_ns, accepted_ns),
                (established_ns, observed.request_ns),
                (observed.request_ns, observed.upgraded_ns),
            ];
            for (spread, (from_ns, to_ns)) in self.stages.iter_mut().zip(stages) {
                spread.observe(from_ns, to_ns);
            }
        }
        *self.outcomes.entry(word).or_insert(0) += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (word, count) in &other.outcomes {
            *self.outcomes.entry(word.clone()).or_insert(0) += count;
        }
        self.whole.add(&other.whole);
        for (spread, more) in self.stages.iter_mut().zip(&other.stages) {
            spread.add(more);
        }
    }
}

/// The socket's cookie, its generation, its namespace.
type Id = (u64, u32, u32);

#[derive(Debug, Default)]
struct State {
    tallies: HashMap<CountKey, Tally>,
    /// Open connections that were told already, and the last look that met each.
    told: HashMap<Id, u64>,
    looks: u64,
    /// Told at their end while a look is under way, which may still show them as open.
    over: Option<HashSet<Id>>,
}

impl State {
    fn tally(&mut self, observed: &Observed, word: Cow<'static, str>) {
        let key = key_of(observed);
        let room = self.tallies.len() < MOST || self.tallies.contains_key(&key);
        self.tallies.entry(if room { key } else { OTHERS }).or_default().take(observed, word);
    }

    fn take_ended(&mut self, observed: &Observed, sight: Sight, since_ns: u64) {
        let id = id(observed);
        if self.told.remove(&id).is_some() {
            return;
        }
        if let Some(word) = attempt(observed, sight)
            && observed.closed_ns.max(observed.upgraded_ns) >= since_ns
        {
            if let Some(over) = self.over.as_mut().filter(|_| observed.upgraded_ns != 0) {
                over.insert(id);
            }
            // Upgraded under another agent, which told it.
            if word != "upgraded" || observed.upgraded_ns >= since_ns {
                self.tally(observed, word);
            }
        }
    }

    fn take_open(&mut self, open: &[Observed], sight: Sight, since_ns: u64, now_ns: u64) {
        self.looks += 1;
        let over = self.over.take().unwrap_or_default();
        for observed in open {
            let known = observed.upgraded_ns >= since_ns.max(1) && lived_until(observed, now_ns);
            // Without a cookie it could not be known again.
            if !known || observed.cookie == 0 {
                continue;
            }
            let id = id(observed);
            if over.contains(&id) {
                continue;
            }
            if self.told.insert(id, self.looks).is_none()
                && let Some(word) = attempt(observed, sight)
            {
                self.tally(observed, word);
            }
        }
        // Those whose end was lost. An end that is on its way comes before the next look but one.
        let looks = self.looks;
        self.told.retain(|_, met| looks - *met < 2);
    }
}

fn id(observed: &Observed) -> Id {
    (observed.cookie, observed.generation, observed.netns)
}

/// The outcome of what asked for a WebSocket, or failed below HTTP; `None` while it is on its way.
fn attempt(observed: &Observed, sight: Sight) -> Option<Cow<'static, str>> {
    if observed.flags & flag::LISTENER != 0 {
        return None;
    }
    let signs = Signs {
        established: observed.established_ns != 0,
        requested: observed.request_ns != 0,
        asked: observed.http.flags & http::ASKS_FOR_WEBSOCKET != 0,
    };
    outcome(observed, false, sight).filter(|word| word != "open" && is_attempt(word, signs))
}

/// What the agent knows of handshakes since it started.
#[derive(Debug)]
pub(crate) struct Handshakes {
    sight: Sight,
    since_ns: u64,
    state: Mutex<State>,
    /// When the open connections may be looked at again; held while they are.
    look_due: Mutex<Instant>,
}

impl Handshakes {
    /// Starts to listen; `None` where ends are not seen (`--counts-only`).
    pub(crate) fn start(source: &dyn Source) -> Option<Arc<Self>> {
        let mut ended = source.ended()?;
        let handshakes = Arc::new(Self {
            sight: Sight::of(&source.hooks()),
            since_ns: clock::mono_ns().unsigned_abs(),
            state: Mutex::default(),
            look_due: Mutex::new(Instant::now()),
        });
        let taker = Arc::clone(&handshakes);
        tokio::spawn(async move {
            while let Some(batch) = ended.recv().await {
                let mut state = taker.lock();
                for observed in &batch {
                    state.take_ended(observed, taker.sight, taker.since_ns);
                }
            }
        });
        Some(handshakes)
    }

    /// Looks at the open connections, unless that was done just now: tens of milliseconds at 50,000.
    ///
    /// # Errors
    /// As [`Source::connections`].
    pub(crate) fn look(&self, source: &dyn Source) -> anyhow::Result<()> {
        let Ok(mut due) = self.look_due.try_lock() else { return Ok(()) };
        let began = Instant::now();
        if began < *due {
            return Ok(());
        }
        self.lock().over = Some(HashSet::new());
        let open = source.connections().inspect_err(|_| self.lock().over = None)?;
        let now_ns = clock::mono_ns().unsigned_abs();
        self.lock().take_open(&open, self.sight, self.since_ns, now_ns);
        *due = Instant::now() + LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
        Ok(())
    }

    pub(crate) fn tallies(&self) -> Vec<(CountKey, Tally)> {
        self.lock().tallies.iter().map(|(key, tally)| (*key, tally.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::spread::BOUNDS_SECONDS;
    use crate::truth::polled::empty_connection;

    const MS: u64 = 1_000_000;
    const SINCE_NS: u64 = 100 * MS;

    fn sight() -> Sight {
        Sight::of(&["ingress", "egress"].map(|way| format!("cgroup_skb/{way}")))
    }

    /// A server's end whose SYN came at `syn_ms`; over after an hour, if it is.
    fn leg(cookie: u64, port: u16, status: u16, syn_ms: u64, over: bool) -> Observed {
        let mut connection = empty_connection();
        (connection.cookie, connection.local_port) = (cookie, port);
        connection.role = role::PASSIVE;
        connection.flags = flag::ACCEPTED | if over { flag::REMOTE_FIN_FIRST } else { 0 };
        connection.syn_received_ns = syn_ms * MS;
        connection.established_ns = (syn_ms + 1) * MS;
        connection.accepted_ns = (syn_ms + 2) * MS;
        connection.request_ns = (syn_ms + 4) * MS;
        connection.response_ns = (syn_ms + 10) * MS;
        connection.upgraded_ns = if status == 101 { connection.response_ns } else { 0 };
        connection.http_status = status;
        connection.closed_ns = if over { 3_600_000 * MS } else { 0 };
        connection.left_established_ns = connection.closed_ns;
        let mut observed = Observed::from(connection);
        observed.http.flags = http::ASKS_FOR_WEBSOCKET;
        observed
    }

    fn outcomes(state: &State) -> Vec<(u16, String, u64)> {
        let mut all: Vec<(u16, String, u64)> = state
            .tallies
            .iter()
            .flat_map(|(key, tally)| {
                tally.outcomes.iter().map(|(word, count)| (key.port, word.to_string(), *count))
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn each_handshake_is_told_once() {
        let mut state = State::default();
        let open = [leg(1, 3005, 101, 200, false), leg(2, 3005, 101, 201, false)];
        let now_ns = 3_000 * MS;
        for _ in 0..3 {
            state.take_open(&open, sight(), SINCE_NS, now_ns);
        }
        assert_eq!(outcomes(&state), [(3005, "upgraded".into(), 2)]);
        // Over; a look that is under way may still show one that was never told as open.
        state.over = Some(HashSet::new());
        state.take_ended(&leg(1, 3005, 101, 200, true), sight(), SINCE_NS);
        state.take_ended(&leg(3, 3005, 101, 202, true), sight(), SINCE_NS);
        state.take_ended(&leg(4, 3005, 503, 203, true), sight(), SINCE_NS);
        state.take_open(&[open[1], leg(3, 3005, 101, 202, false)], sight(), SINCE_NS, now_ns);
        let expected = [(3005, "http_503".into(), 1), (3005, "upgraded".into(), 3)];
        assert_eq!(outcomes(&state), expected);
        // An end that is on its way while a look does not show it any more.
        state.take_open(&[], sight(), SINCE_NS, now_ns);
        state.take_ended(&leg(2, 3005, 101, 201, true), sight(), SINCE_NS);
        assert_eq!(outcomes(&state), expected);
        assert!(state.told.is_empty());
    }

    #[test]
    fn what_was_before_the_agent_and_what_has_not_lived_is_not_told() {
        let mut state = State::default();
        let before = leg(1, 3005, 101, 50, false);
        let young = leg(2, 3005, 101, 200, false);
        state.take_open(&[before, young], sight(), SINCE_NS, 300 * MS);
        state.take_ended(&leg(1, 3005, 101, 50, true), sight(), SINCE_NS);
        assert_eq!(outcomes(&state), []);
        let mut turned_away = leg(2, 3005, 101, 200, true);
        turned_away.connection.left_established_ns = 220 * MS;
        state.take_ended(&turned_away, sight(), SINCE_NS);
        assert_eq!(outcomes(&state), [(3005, "closed_right_after_upgrade".into(), 1)]);
    }

    #[test]
    fn what_nobody_saw_is_no_failure() {
        let blind = Sight::of(&[]);
        let mut state = State::default();
        let mut ended = leg(1, 3005, 0, 200, true);
        ended.http.flags = 0;
        state.take_ended(&ended, blind, SINCE_NS);
        assert_eq!(outcomes(&state), []);
        ended.connection.established_ns = 0;
        state.take_ended(&ended, blind, SINCE_NS);
        assert_eq!(outcomes(&state), [(3005, "unknown".into(), 1)]);
    }

    #[test]
    fn durations_are_in_their_buckets() {
        let mut tally = Tally::default();
        tally.take(&leg(1, 3005, 101, 200, true), "upgraded".into());
        let in_bucket = |spread: &Spread| {
            let filled: Vec<usize> =
                (0..=BOUNDS_SECONDS.len()).filter(|&index| spread.buckets[index] != 0).collect();
            (filled, spread.sum_ns / MS)
        };
        let bucket = |seconds: f64| {
            let found = BOUNDS_SECONDS.iter().position(|bound| *bound == seconds);
            vec![found.unwrap()]
        };
        // A bound belongs to its bucket.
        assert_eq!(in_bucket(&tally.whole), (bucket(0.01), 10));
        let stages: Vec<_> = tally.stages.iter().map(in_bucket).collect();
        let expected =
            [(bucket(0.001), 1), (bucket(0.001), 1), (bucket(0.005), 3), (bucket(0.01), 6)];
        assert_eq!(stages, expected);

        let mut noticed = leg(2, 3005, 101, 200, true);
        noticed.connection.flags |= flag::ACCEPTED_UPPER_BOUND;
        noticed.connection.syn_received_ns = 0;
        tally.take(&noticed, "upgraded".into());
        let counts = |tally: &Tally| {
            tally.stages.each_ref().map(|spread| spread.buckets.iter().sum::<u64>())
        };
        assert_eq!(counts(&tally), [1, 1, 2, 2]);
        noticed.connection.flags = flag::ESTABLISHED_UPPER_BOUND;
        noticed.connection.role = role::ACTIVE;
        tally.take(&noticed, "upgraded".into());
        assert_eq!(counts(&tally), [1, 1, 2, 3]);
        assert_eq!(tally.whole.buckets.iter().sum::<u64>(), 1);
        let mut long = Spread::default();
        long.observe(1, 11_000 * MS);
        assert_eq!(long.buckets[BOUNDS_SECONDS.len()], 1);
    }

    #[test]
    fn a_flood_of_services_is_one() {
        let mut state = State::default();
        for port in 1..=300 {
            state.take_ended(&leg(u64::from(port), port, 503, 200, true), sight(), SINCE_NS);
        }
        assert_eq!(state.tallies.len(), MOST + 1);
        assert_eq!(state.tallies[&OTHERS].outcomes["http_503"], 300 - MOST as u64);
    }
}
