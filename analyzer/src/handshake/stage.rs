//! Stages of a handshake: how many came how far, and how long each step took.

use schemars::JsonSchema;
use serde::Serialize;

use crate::handshake::attempt::{Attempt, RESPONSE, STAGE_COUNT, UPGRADE};

/// In order, as DESIGN names them; of an active leg, `syn_received` is the SYN it sent, and `request`
/// and `response` are what it sent and got.
pub(crate) const STAGES: [&str; STAGE_COUNT] = [
    "syn_received",
    "syn_ack_sent",
    "established",
    "accepted",
    "request_received",
    "response_sent",
    "upgraded",
    "first_frame",
];

/// Between which two events a time was taken.
const STEPS: [(usize, usize); 6] = [(0, 2), (2, 3), (2, 4), (4, 5), (6, 7), (0, 6)];

/// How many attempts reached a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct Reached {
    pub(crate) stage: &'static str,
    pub(crate) count: usize,
}

/// Durations of one step, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Step {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) count: usize,
    pub(crate) p50_us: f64,
    /// In 99.7 of 100 such runs the true median lies from here …
    pub(crate) p50_low_us: f64,
    /// … to here.
    pub(crate) p50_high_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// A stage counts as reached if it or a later one was seen: hooks may be off, or come late.
pub(crate) fn reached<'a>(attempts: impl Iterator<Item = Attempt<'a>>) -> Vec<Reached> {
    let mut counts = [0; STAGE_COUNT];
    for attempt in attempts {
        if let Some(last) = (0..STAGE_COUNT).rev().find(|stage| attempt.at(*stage).is_some()) {
            counts[last] += 1;
        }
    }
    for stage in (1..STAGE_COUNT).rev() {
        counts[stage - 1] += counts[stage];
    }
    STAGES.iter().zip(counts).map(|(stage, count)| Reached { stage, count }).collect()
}

/// Percentiles (nearest rank: a value that was measured) of every step that was seen.
pub(crate) fn steps<'a>(attempts: &(impl Iterator<Item = Attempt<'a>> + Clone)) -> Vec<Step> {
    STEPS
        .iter()
        .filter_map(|&(from, to)| {
            let mut times: Vec<i64> = attempts
                .clone()
                // An upgrade of a connection that had served other requests before did not begin with it.
                .filter(|attempt| to != UPGRADE || attempt.at(RESPONSE).is_some())
                .filter_map(|attempt| attempt.took_ns(from, to))
                .collect();
            let margin = median_margin(times.len());
            let shares = [0.5 - margin, 0.5, 0.5 + margin, 0.9, 0.99, 0.999, 1.0];
            let found = percentiles(&mut times, shares)?.map(|ns| ns as f64 / 1e3);
            let [p50_low_us, p50_us, p50_high_us, p90_us, p99_us, p999_us, max_us] = found;
            Some(Step {
                from: STAGES[from],
                to: STAGES[to],
                count: times.len(),
                p50_us,
                p50_low_us,
                p50_high_us,
                p90_us,
                p99_us,
                p999_us,
                max_us,
            })
        })
        .collect()
}

/// How far off the middle, as a share of the ranks, the true median may be: three standard deviations
/// of a binomial count.
fn median_margin(count: usize) -> f64 {
    (1.5 / (count.max(1) as f64).sqrt()).min(0.5)
}

/// The smallest value that at least `share` of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[i64], share: f64) -> Option<i64> {
    sorted.get(rank(sorted.len(), share)).copied()
}

/// Index of the value among so many sorted ones.
fn rank(count: usize, share: f64) -> usize {
    ((share * count as f64).ceil() as usize).max(1) - 1
}

/// Likewise of values in any order, which it rearranges. Sorting millions of times just to read seven of
/// them would take most of a report's time.
fn percentiles<const N: usize>(values: &mut [i64], shares: [f64; N]) -> Option<[i64; N]> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let ranks = shares.map(|share| rank(count, share).min(count - 1));
    let mut rising = ranks;
    rising.sort_unstable();
    // What has its place is not looked at again: another search would move it.
    let mut placed = 0;
    for rank in rising {
        if rank >= placed {
            values[placed..].select_nth_unstable(rank - placed);
            placed = rank + 1;
        }
    }
    Some(ranks.map(|rank| values[rank]))
}

#[cfg(test)]
mod tests {
    use super::{percentile, percentiles};
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<i64> = (1..=1_000).collect();
        let cases = [(0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999), (1.0, 1_000)];
        for (share, expected) in cases {
            assert_eq!(percentile(&values, share), Some(expected));
        }
        assert_eq!(percentile(&[7], 0.5), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn in_any_order_they_are_the_same(mut values in prop::collection::vec(0..200i64, 0..300)) {
            let shares = [0.0, 0.3, 0.5, 0.95, 0.9, 0.999, 1.0];
            let found = percentiles(&mut values.clone(), shares);
            values.sort_unstable();
            let sorted: Option<Vec<i64>> = shares.iter().map(|s| percentile(&values, *s)).collect();
            prop_assert_eq!(found.map(Vec::from), sorted);
        }
    }
}
