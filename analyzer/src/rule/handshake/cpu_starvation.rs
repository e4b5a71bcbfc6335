//! Too little CPU: whatever needs the process takes long, for everybody, while its CPU is used up.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;
use crate::handshake::stage::percentile;

/// So much slower than the quickest hundredth, at the median, is stretched.
const STRETCHED: f64 = 10.0;
/// Shorter medians are noise of the scheduler.
const SHORTEST_MS: f64 = 20.0;
/// Percent of what it may use.
const BUSY: f64 = 70.0;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let words = ["never_accepted", "no_response_client_left", "no_request", "upstream_timeout"];
    let claimed = case.having(open, &words);
    if claimed.is_empty() {
        return Vec::new();
    }
    let (from_ns, to_ns) = case.span(&claimed);
    let within = |index: &usize| (from_ns..=to_ns).contains(&case.attempt(*index).start_ns);
    let front = || case.legs.front.iter().copied();
    let Some(busy_ms) = case.median_ms(front().filter(|i| within(i)), waited_ns) else {
        return Vec::new();
    };
    let mut all: Vec<i64> = front().filter_map(|index| waited_ns(case.attempt(index))).collect();
    all.sort_unstable();
    let quick_ms = percentile(&all, 0.01).map_or(0.0, |ns| ns as f64 / 1e6);
    // A sample tells of the time since the one before, so the first one after counts as well.
    let cpu = case.recording.health_numbers("cpu.percentage").unwrap_or_default();
    let after = cpu.iter().position(|(at, _)| *at >= to_ns).map_or(cpu.len(), |first| first + 1);
    let during = cpu[..after].iter().filter(|(at, _)| *at >= from_ns);
    let highest = during.map(|(_, value)| *value).max_by(f64::total_cmp);
    let stretched = busy_ms >= SHORTEST_MS && busy_ms >= STRETCHED * quick_ms;
    let Some(highest) = highest.filter(|highest| stretched && *highest >= BUSY) else {
        return Vec::new();
    };
    one(claimed, |claimed| {
        Cause::new(
            "cpu_starvation",
            format!(
                "between {} and {} the process had too little CPU: everything it does was slow",
                case.time(from_ns),
                case.time(to_ns)
            ),
            claimed,
        )
        .says(format!("it reported up to {highest:.0} % CPU then"))
        .says(format!(
            "half of all attempts then waited {busy_ms:.0} ms or longer; the quickest hundredth \
             of the run {quick_ms:.1} ms or less"
        ))
        .next_step("look at CPU limits (cgroup throttling), neighbours, and what ran at that time")
    })
}

/// From established to the answer, or to the end.
fn waited_ns(attempt: &Attempt) -> Option<i64> {
    use crate::handshake::attempt::{ESTABLISHED, RESPONSE};
    let until = attempt.at(RESPONSE).or(attempt.left_ns())?;
    Some(until - attempt.at(ESTABLISHED)?)
}
