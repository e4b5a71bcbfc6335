//! Too little CPU: every stage that needs the process stretches at the same time.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

/// Stretched so much against quiet times, in accepting and in answering alike.
const STRETCHED: f64 = 5.0;
/// Shorter medians are noise of the scheduler.
const SHORTEST_MS: f64 = 20.0;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let words = [
        "never_accepted",
        "no_response_client_left",
        "no_request",
        "upstream_timeout",
        "syn_ack_timeout",
    ];
    let claimed = case.having(open, &words);
    let (from_ns, to_ns) = case.span(&claimed);
    let busy = |index: &usize| (from_ns..=to_ns).contains(&case.attempt(*index).start_ns);
    let stretch = |of: fn(&Attempt) -> Option<i64>| {
        let within = case.legs.front.iter().copied().filter(|i| busy(i));
        let outside = case.legs.front.iter().copied().filter(|i| !busy(i));
        Some((case.median_ms(within, of)?, case.median_ms(outside, of)?))
    };
    let (Some(accept), Some(answer)) =
        (stretch(Attempt::accept_wait_ns), stretch(Attempt::answer_ns))
    else {
        return Vec::new();
    };
    let stretched =
        |(within, outside): (f64, f64)| within >= SHORTEST_MS && within >= STRETCHED * outside;
    if !stretched(accept) || !stretched(answer) {
        return Vec::new();
    }
    one(claimed, |claimed| {
        let cause = Cause::new(
            "cpu_starvation",
            format!(
                "between {} and {} the process had too little CPU: every stage was slow",
                case.time(from_ns),
                case.time(to_ns)
            ),
            claimed,
        )
        .says(format!(
            "waiting to be accepted: {:.1} ms, otherwise {:.1} ms (medians)",
            accept.0, accept.1
        ))
        .says(format!("waiting for the answer: {:.1} ms, otherwise {:.1} ms", answer.0, answer.1))
        .next_step("look at CPU limits (cgroup throttling), neighbours, and what ran at that time");
        let cpu = case.recording.health_numbers("cpu.percentage").unwrap_or_default();
        let highest = cpu.iter().filter(|(at, _)| (from_ns..=to_ns).contains(at));
        match highest.map(|(_, value)| *value).max_by(f64::total_cmp) {
            Some(highest) => cause.says(format!("it reported up to {highest:.0} % CPU then")),
            None => cause,
        }
    })
}
