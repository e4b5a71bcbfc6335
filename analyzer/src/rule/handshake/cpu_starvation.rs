//! Too little CPU: whatever needs the process takes long, for everybody, while its CPU is used up.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

/// A process with CPU to spare answers half of its handshakes sooner.
const SLOW_MS: f64 = 100.0;
/// Percent of what it may use.
const BUSY: f64 = 70.0;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let words = ["never_accepted", "no_response_client_left", "no_request", "upstream_timeout"];
    let claimed = case.having(open, &words);
    if claimed.is_empty() {
        return Vec::new();
    }
    let (from_ns, to_ns) = case.span(&claimed);
    let within = |index: &usize| (from_ns..=to_ns).contains(&case.attempt(*index).start_ns());
    let front = || case.legs.front.iter().copied();
    let Some(busy_ms) = case.median_ms(front().filter(|i| within(i)), waited_ns) else {
        return Vec::new();
    };
    // A sample tells of the time since the one before, so the first one after counts as well.
    let cpu = case.recording.health_numbers("cpu.percentage").unwrap_or_default();
    let after = cpu.iter().position(|(at, _)| *at >= to_ns).map_or(cpu.len(), |first| first + 1);
    let during = cpu[..after].iter().filter(|(at, _)| *at >= from_ns);
    let highest = during.map(|(_, value)| *value).max_by(f64::total_cmp);
    let Some(highest) = highest.filter(|highest| busy_ms >= SLOW_MS && *highest >= BUSY) else {
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
        .says(format!("half of all attempts then waited {busy_ms:.0} ms or longer"))
        .next_step("look at CPU limits (cgroup throttling), neighbours, and what ran at that time")
    })
}

/// From established to the answer, or to the end.
fn waited_ns(attempt: Attempt<'_>) -> Option<i64> {
    use crate::handshake::attempt::{ESTABLISHED, RESPONSE};
    let until = attempt.at(RESPONSE).or(attempt.left_ns())?;
    Some(until - attempt.at(ESTABLISHED)?)
}
