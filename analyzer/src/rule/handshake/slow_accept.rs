//! The accept loop is slow or stands still: established in the kernel, waiting for the process.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

/// Connections that wait longer were not accepted promptly.
const LATE_NS: i64 = 200_000_000;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> = open
        .iter()
        .copied()
        .filter(|index| {
            let waited = case.attempt(*index).accept_wait_ns().is_some_and(|ns| ns >= LATE_NS);
            let word = case.outcome(*index);
            word == "never_accepted" || (waited && word.starts_with("no_"))
        })
        .collect();
    one(claimed, |claimed| {
        let median = case.median_ms(claimed.iter().copied(), Attempt::accept_wait_ns);
        let longest = claimed
            .iter()
            .filter_map(|index| case.attempt(*index).accept_wait_ns())
            .max()
            .unwrap_or(0);
        let (from_ns, to_ns) = case.span(&claimed);
        Cause::new(
            "slow_accept",
            format!(
                "between {} and {} established connections waited to be accepted",
                case.time(from_ns),
                case.time(to_ns)
            ),
            claimed,
        )
        .says(format!(
            "they waited {:.0} ms (median), up to {:.1} s, from established to accepted or to their end",
            median.unwrap_or(0.0),
            longest as f64 / 1e9
        ))
        .next_step("find what blocks the accept loop: work done in it, a lock, one thread for all")
    })
}
