//! The accept loop is slow or stands still: established in the kernel, waiting for the process.

use super::{Case, Cause, one};
use crate::handshake::attempt::{ACCEPTED, Attempt};

/// Connections that wait longer were not accepted promptly.
const LATE_NS: i64 = 200_000_000;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let waiting = |index: &usize| case.outcome(*index).starts_with("no_") || never(case, *index);
    let late = |index: &usize| {
        never(case, *index) || case.attempt(*index).accept_wait_ns().is_some_and(|ns| ns >= LATE_NS)
    };
    let told: Vec<usize> = open.iter().copied().filter(|i| waiting(i) && late(i)).collect();
    if told.is_empty() {
        return Vec::new();
    }
    let (from_ns, to_ns) = case.span(&told);
    // One that waited at the same time, and whose accept was only noticed at its end, was late as well.
    let between = |index: &usize| {
        let attempt = case.attempt(*index);
        attempt.at(ACCEPTED).is_none()
            && attempt.start_ns() <= to_ns
            && attempt.left_ns().is_some_and(|left| left >= from_ns)
    };
    let claimed: Vec<usize> =
        open.iter().copied().filter(|i| waiting(i) && (late(i) || between(i))).collect();
    one(claimed, |claimed| {
        let median = case.median_ms(told.iter().copied(), Attempt::accept_wait_ns);
        let longest = told
            .iter()
            .filter_map(|index| case.attempt(*index).accept_wait_ns())
            .max()
            .unwrap_or(0);
        let by_analogy = claimed.len() - told.len();
        let cause = Cause::new(
            "slow_accept",
            format!(
                "between {} and {} established connections waited to be accepted",
                case.time(from_ns),
                case.time(to_ns)
            ),
            claimed,
        )
        .says(format!(
            "{} waited {:.0} ms (median), up to {:.1} s, from established to accepted or to their end",
            told.len(),
            median.unwrap_or(0.0),
            longest as f64 / 1e9
        ))
        .next_step("find what blocks the accept loop: work done in it, a lock, one thread for all");
        if by_analogy > 0 {
            return cause.but(format!(
                "when {by_analogy} others among them were accepted is not known: they may have waited \
                 for the answer instead"
            ));
        }
        cause
    })
}

fn never(case: &Case<'_>, index: usize) -> bool {
    case.outcome(index) == "never_accepted"
}
