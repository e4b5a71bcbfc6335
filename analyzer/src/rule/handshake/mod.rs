//! Causes of failed handshakes, one rule per file.
//!
//! Rules are asked in order, from those that leave no doubt to those that only shape and timing tell;
//! each claims the failures it explains, and what none claims is `unknown`.

mod accept_queue_overflow;
mod authentication;
mod capacity_limit;
mod client_gave_up;
mod closed_after_upgrade;
mod cpu_starvation;
mod descriptor_exhaustion;
mod ephemeral_ports;
mod load_shedding;
mod no_healthy_upstream;
mod no_listener;
mod not_a_websocket_server;
mod not_http;
mod packet_loss;
mod proxy_headers;
mod rate_limit;
mod server_closed;
mod server_hangs;
mod slots;
mod slow_accept;
mod upstream_refused;
mod upstream_reset;
mod upstream_timeout;
mod upstream_unreachable;
mod wrong_accept;
mod wrong_path;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::handshake::attempt::{Attempt, Attempts};
use crate::handshake::legs::{Legs, Upstream};
use crate::handshake::outcome::UPGRADED;
use crate::handshake::shape::{self, Shape, Successes};
use crate::handshake::stage::percentile;
use crate::input::recording::Recording;
use crate::report::model::Certainty;

/// What a rule looks at. Failures and attempts are indices into `attempts.all`.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) recording: &'a Recording,
    pub(crate) attempts: &'a Attempts<'a>,
    pub(crate) legs: &'a Legs,
    successes: OnceCell<Successes>,
    usual_answer_ns: OnceCell<i64>,
}

/// One cause, the failures it explains, and what speaks for and against it.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Cause {
    pub(crate) name: &'static str,
    /// What happened, in a sentence.
    pub(crate) summary: String,
    #[serde(skip)]
    pub(crate) explains: Vec<usize>,
    pub(crate) count: usize,
    pub(crate) certainty: Certainty,
    pub(crate) evidence_for: Vec<String>,
    pub(crate) evidence_against: Vec<String>,
    /// The candidate that the evidence does not rule out, and what would decide.
    pub(crate) or: Option<&'static str>,
    pub(crate) would_decide: Option<&'static str>,
    pub(crate) next_step: &'static str,
}

type Rule = fn(&Case<'_>, &[usize]) -> Vec<Cause>;

const RULES: [Rule; 26] = [
    wrong_accept::judge,
    not_http::judge,
    ephemeral_ports::judge,
    upstream_refused::judge,
    upstream_unreachable::judge,
    no_listener::judge,
    accept_queue_overflow::judge,
    packet_loss::judge,
    closed_after_upgrade::judge,
    upstream_reset::judge,
    upstream_timeout::judge,
    proxy_headers::judge,
    authentication::judge,
    wrong_path::judge,
    rate_limit::judge,
    not_a_websocket_server::judge,
    no_healthy_upstream::judge,
    slots::judge,
    capacity_limit::judge,
    load_shedding::judge,
    cpu_starvation::judge,
    descriptor_exhaustion::judge,
    slow_accept::judge,
    server_closed::judge,
    server_hangs::judge,
    client_gave_up::judge,
];

/// Every cause, the one that explains the most first; the unexplained rest last.
pub(crate) fn causes(case: &Case<'_>) -> Vec<Cause> {
    let mut left: Vec<usize> = case
        .legs
        .front
        .iter()
        .copied()
        .filter(|index| case.attempts.get(*index).failed())
        .collect();
    let mut causes: Vec<Cause> = Vec::new();
    for rule in RULES {
        for cause in rule(case, &left) {
            left.retain(|index| cause.explains.binary_search(index).is_err());
            causes.push(cause);
        }
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    if !left.is_empty() {
        causes.push(
            Cause::new("unknown", "nothing recorded explains them", left)
                .certainty(Certainty::Unknown)
                .next_step("`analyzer connections --json` has every fact of these rows"),
        );
    }
    causes
}

impl Cause {
    fn new(name: &'static str, summary: impl Into<String>, mut explains: Vec<usize>) -> Self {
        explains.sort_unstable();
        Cause {
            name,
            summary: summary.into(),
            count: explains.len(),
            explains,
            certainty: Certainty::Likely,
            evidence_for: Vec::new(),
            evidence_against: Vec::new(),
            or: None,
            would_decide: None,
            next_step: "",
        }
    }

    fn certainty(mut self, certainty: Certainty) -> Self {
        self.certainty = certainty;
        self
    }

    fn says(mut self, evidence: impl Into<String>) -> Self {
        self.evidence_for.push(evidence.into());
        self
    }

    fn but(mut self, evidence: impl Into<String>) -> Self {
        self.evidence_against.push(evidence.into());
        self
    }

    fn or(mut self, other: &'static str, would_decide: &'static str) -> Self {
        self.certainty = Certainty::Possible;
        (self.or, self.would_decide) = (Some(other), Some(would_decide));
        self
    }

    fn next_step(mut self, step: &'static str) -> Self {
        self.next_step = step;
        self
    }
}

impl<'a> Case<'a> {
    pub(crate) fn new(
        recording: &'a Recording,
        attempts: &'a Attempts<'a>,
        legs: &'a Legs,
    ) -> Self {
        let (successes, usual_answer_ns) = Default::default();
        Self { recording, attempts, legs, successes, usual_answer_ns }
    }

    fn attempt(&self, index: usize) -> Attempt<'_> {
        self.attempts.get(index)
    }

    fn outcome(&self, index: usize) -> &str {
        self.attempts.get(index).outcome()
    }

    /// The shard's side of it, where it was recorded.
    fn upstream(&self, index: usize) -> Option<Attempt<'_>> {
        match self.legs.upstream(index) {
            Upstream::Leg(upstream) => Some(self.attempts.get(upstream)),
            Upstream::None | Upstream::NeverTried => None,
        }
    }

    fn never_tried(&self, index: usize) -> bool {
        self.legs.upstream(index) == Upstream::NeverTried
            || self.outcome(index) == "upstream_never_tried"
    }

    fn status(&self, index: usize) -> Option<u32> {
        self.attempt(index).status()
    }

    fn upstream_status(&self, index: usize) -> Option<u32> {
        self.upstream(index)?.status()
    }

    fn having(&self, open: &[usize], outcomes: &[&str]) -> Vec<usize> {
        open.iter().copied().filter(|index| outcomes.contains(&self.outcome(*index))).collect()
    }

    /// Answered by such a status, and in time for the client.
    fn with_status(&self, open: &[usize], wanted: impl Fn(u32) -> bool) -> Vec<usize> {
        let answered = |index: &usize| !self.outcome(*index).starts_with("no_response");
        let wanted = |index: &usize| self.status(*index).is_some_and(&wanted);
        open.iter().copied().filter(|index| answered(index) && wanted(index)).collect()
    }

    /// Answered by a status that refuses for the moment.
    fn refused_for_now(&self, open: &[usize]) -> Vec<usize> {
        self.with_status(open, |status| matches!(status, 500 | 502 | 503 | 504 | 529))
    }

    /// How they lie among those that did not fail.
    fn shape(&self, failures: &[usize]) -> Option<Shape> {
        let among = || Successes::among(self.attempts, &self.legs.front);
        shape::of(self.attempts, self.successes.get_or_init(among), failures)
    }

    /// From request to answer: the 99th percentile of those that were upgraded.
    fn usual_answer_ns(&self) -> i64 {
        *self.usual_answer_ns.get_or_init(|| {
            let front = self.legs.front.iter().map(|index| self.attempt(*index));
            let upgraded = front.filter(|attempt| attempt.outcome() == UPGRADED);
            let mut times: Vec<i64> = upgraded.filter_map(Attempt::answer_ns).collect();
            times.sort_unstable();
            percentile(&times, 0.99).unwrap_or(0)
        })
    }

    /// How many front attempts were upgraded.
    fn upgraded(&self) -> usize {
        let upgraded = |index: &&usize| self.outcome(**index) == UPGRADED;
        self.legs.front.iter().filter(upgraded).count()
    }

    /// Median over some attempts, in milliseconds.
    fn median_ms<'b>(
        &'b self,
        indices: impl Iterator<Item = usize>,
        of: impl Fn(Attempt<'b>) -> Option<i64>,
    ) -> Option<f64> {
        let mut times: Vec<i64> = indices.filter_map(|index| of(self.attempt(index))).collect();
        times.sort_unstable();
        Some(*times.get(times.len() / 2)? as f64 / 1e6)
    }

    /// `same status on both legs of 45 of 45`, where upstream legs were recorded.
    fn both_legs(&self, failures: &[usize]) -> Option<String> {
        let linked: Vec<usize> =
            failures.iter().copied().filter(|index| self.upstream(*index).is_some()).collect();
        let same = linked.iter().filter(|i| self.upstream_status(**i) == self.status(**i)).count();
        (!linked.is_empty()).then(|| {
            format!("the shard gave the same status in {same} of {} of them", linked.len())
        })
    }

    /// When each of them began, from the first to the last.
    fn span(&self, failures: &[usize]) -> (i64, i64) {
        let starts = || failures.iter().map(|index| self.attempt(*index).start_ns());
        (starts().min().unwrap_or(0), starts().max().unwrap_or(0))
    }

    fn time(&self, mono_ns: i64) -> String {
        crate::clock::utc_time(self.recording.clock.unix_ns(mono_ns))
    }

    /// The last number of the health bodies whose path ends so.
    fn last_health(&self, path_end: &str) -> Option<f64> {
        let numbers = self.recording.health_numbers(path_end).ok()?;
        numbers.last().map(|(_, value)| *value)
    }

    /// One series of the server's metrics page: monotonic time and value.
    fn metric(&self, name: &str) -> Option<Vec<(i64, f64)>> {
        Some(self.metric_rows(name)?.map(|(_, at, value)| (at, value)).collect())
    }

    /// The same of each page, and of each service that the probe itself looked at.
    fn metric_by_page(&self, name: &str) -> BTreeMap<&'a str, Vec<(i64, f64)>> {
        let mut pages: BTreeMap<&str, Vec<(i64, f64)>> = BTreeMap::new();
        for (page, at, value) in self.metric_rows(name).into_iter().flatten() {
            pages.entry(page).or_default().push((at, value));
        }
        pages
    }

    /// Page, monotonic time and value.
    fn metric_rows(&self, name: &str) -> Option<impl Iterator<Item = (&'a str, i64, f64)>> {
        let table = &self.recording.metrics;
        let pages = table.column("url").ok()?.str().ok()?.iter();
        let names = table.column("name").ok()?.str().ok()?.iter();
        let at = table.column("end_mono_ns").ok()?.i64().ok()?.iter();
        let values = table.column("value").ok()?.f64().ok()?.iter();
        let rows = pages.zip(names).zip(at.zip(values));
        Some(
            rows.filter(move |((_, found), _)| *found == Some(name))
                .filter_map(|((page, _), (at, value))| Some((page?, at?, value?))),
        )
    }

    /// The most of the metrics whose names end so, in the whole recording.
    fn most_by_metric(&self, end: &str) -> Option<f64> {
        let table = &self.recording.metrics;
        let names = table.column("name").ok()?.str().ok()?;
        let values = table.column("value").ok()?.f64().ok()?;
        let of_these = names
            .iter()
            .zip(values.iter())
            .filter(|(name, _)| name.is_some_and(|name| name.ends_with(end)));
        of_these.filter_map(|(_, value)| value).max_by(f64::total_cmp)
    }

    /// The kernel's own counter, where it grew.
    fn counter(&self, name: &str) -> Option<String> {
        let growth = *self.recording.kernel_growth.get(name)?;
        (growth > 0.0).then(|| format!("the kernel's {name} grew by {growth}"))
    }
}

/// One cause for all that were claimed; nothing claimed, no cause.
fn one(claimed: Vec<usize>, cause: impl FnOnce(Vec<usize>) -> Cause) -> Vec<Cause> {
    if claimed.is_empty() { Vec::new() } else { vec![cause(claimed)] }
}
