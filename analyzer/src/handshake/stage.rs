//! Stages of a handshake: how many came how far, and how long each step took.

use serde::Serialize;

use crate::handshake::attempt::{Attempt, STAGE_COUNT};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reached {
    pub(crate) stage: &'static str,
    pub(crate) count: usize,
}

/// Durations of one step, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
pub(crate) fn reached<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Vec<Reached> {
    let mut counts = [0; STAGE_COUNT];
    for attempt in attempts {
        if let Some(last) = attempt.stages.iter().rposition(Option::is_some) {
            for count in &mut counts[..=last] {
                *count += 1;
            }
        }
    }
    STAGES.iter().zip(counts).map(|(stage, count)| Reached { stage, count }).collect()
}

/// Percentiles (nearest rank: a value that was measured) of every step that was seen.
pub(crate) fn steps(attempts: &[&Attempt]) -> Vec<Step> {
    STEPS
        .iter()
        .filter_map(|&(from, to)| {
            let mut times: Vec<i64> = attempts
                .iter()
                // With deferred accept or Fast Open a later stage may come first.
                .filter_map(|attempt| Some((attempt.at(to)? - attempt.at(from)?).max(0)))
                .collect();
            times.sort_unstable();
            let at = |share| percentile(&times, share).map(|ns| ns as f64 / 1e3);
            Some(Step {
                from: STAGES[from],
                to: STAGES[to],
                count: times.len(),
                p50_us: at(0.5)?,
                p50_low_us: at(0.5 - median_margin(times.len()))?,
                p50_high_us: at(0.5 + median_margin(times.len()))?,
                p90_us: at(0.9)?,
                p99_us: at(0.99)?,
                p999_us: at(0.999)?,
                max_us: at(1.0)?,
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
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

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
}
