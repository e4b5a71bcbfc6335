//! What an analysis of the generated files must find, counted while they are written.

use std::collections::BTreeMap;

use serde::Serialize;

use super::leg::{CLIENT_CLOCK_AHEAD_NS, Leg};
use crate::client::record::Record;

/// Times of each step, as a count per microsecond: exact, and bounded.
const LONGEST_US: usize = 1 << 17;

#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) phantoms: i64,
    pub(super) established_at_end: i64,
    /// Connections of the health poller.
    pub(super) polls: u64,
    pub(super) clients: Clients,
    outcomes: BTreeMap<&'static str, u64>,
    steps: BTreeMap<(&'static str, &'static str), Times>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Clients {
    matched: u64,
    /// With a local address that no connection has.
    unmatched: u64,
    without_address: u64,
}

#[derive(Debug)]
struct Times(Vec<u64>);

/// As it is written. Attempts are the rows that asked for an upgrade.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    attempts: u64,
    failed: u64,
    outcomes: BTreeMap<&'static str, u64>,
    plain_http: u64,
    /// Left behind by resets that the server did not notice, and all there at the end.
    phantoms: i64,
    established_at_end: i64,
    clients: Clients,
    clients_clock_ahead_ns: i64,
    /// Of upgraded attempts; quantiles by nearest rank.
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    from: &'static str,
    to: &'static str,
    count: u64,
    p50_us: usize,
    p90_us: usize,
    p99_us: usize,
    p999_us: usize,
    max_us: usize,
}

impl Answers {
    pub(super) fn add(&mut self, leg: &Leg) {
        *self.outcomes.entry(leg.outcome).or_default() += 1;
        if !leg.is_upgraded() {
            return;
        }
        let (syn, upgraded) = (Some(leg.syn_ns), leg.upgraded_ns());
        for (from, to, start, end) in [
            ("syn_received", "established", syn, leg.established_ns),
            ("established", "accepted", leg.established_ns, leg.accepted_ns),
            ("established", "request_received", leg.established_ns, leg.request_ns),
            ("request_received", "response_sent", leg.request_ns, leg.response_ns),
            ("upgraded", "first_frame", upgraded, leg.first_frame_ns),
            ("syn_received", "upgraded", syn, upgraded),
        ] {
            let (Some(start), Some(end)) = (start, end) else { continue };
            let times = &mut self.steps.entry((from, to)).or_default().0;
            times[((end - start) / 1_000) as usize] += 1;
        }
    }

    pub(super) fn finish(&self) -> Found {
        let attempts = self.outcomes.values().sum();
        let upgraded = self.outcomes.get("upgraded").copied().unwrap_or(0);
        Found {
            attempts,
            failed: attempts - upgraded,
            outcomes: self.outcomes.clone(),
            plain_http: self.polls,
            phantoms: self.phantoms,
            established_at_end: self.established_at_end,
            clients: self.clients,
            clients_clock_ahead_ns: CLIENT_CLOCK_AHEAD_NS,
            steps: self.steps.iter().map(|((from, to), times)| times.step(from, to)).collect(),
        }
    }
}

impl Clients {
    pub(super) fn add(&mut self, record: &Record) {
        let kind = match (record.local_port, record.error.is_some()) {
            (None, _) => &mut self.without_address,
            (Some(_), true) => &mut self.unmatched,
            (Some(_), false) => &mut self.matched,
        };
        *kind += 1;
    }

    pub(super) fn total(&self) -> u64 {
        self.matched + self.unmatched + self.without_address
    }
}

impl Default for Times {
    fn default() -> Self {
        Times(vec![0; LONGEST_US])
    }
}

impl Times {
    fn step(&self, from: &'static str, to: &'static str) -> Step {
        let count = self.0.iter().sum();
        let at = |share: f64| {
            let rank = ((share * count as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let reached = self.0.iter().position(|here| {
                seen += here;
                seen >= rank
            });
            reached.unwrap_or(0)
        };
        Step {
            from,
            to,
            count,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        }
    }
}
