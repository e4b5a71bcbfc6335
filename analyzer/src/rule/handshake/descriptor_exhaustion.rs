//! No descriptors: the kernel establishes, but `accept` fails until another connection is closed.

use super::{Case, Cause, one};
use crate::handshake::attempt::RESPONSE;
use crate::report::model::Certainty;
use crate::timeline::Timeline;

/// Of its descriptors: a process that has opened so many has none to spare.
pub(super) const USED_UP: f64 = 0.9;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let waiting = case.having(open, &["never_accepted", "no_response_client_left"]);
    if waiting.is_empty() {
        return Vec::new();
    }
    // Where accepts are only noticed late, an answer proves that one has been.
    let spans = case.legs.front.iter().filter_map(|index| {
        let (answered, left) = (case.attempt(*index).at(RESPONSE)?, case.attempt(*index).left_ns());
        left.is_none_or(|left| answered < left).then_some((answered, left))
    });
    let held = Timeline::from_spans(spans);
    let peak = held.peak().unwrap_or(0);
    // Whatever the limit is, it is the most that were ever held, and was reached all the while.
    let at_limit = |index: &usize| {
        let start_ns = case.attempt(*index).start_ns();
        held.at(start_ns) >= peak - (peak / 50).max(1)
    };
    let claimed: Vec<usize> = waiting.iter().copied().filter(at_limit).collect();
    if peak < 10 || claimed.len() * 20 < waiting.len() * 19 {
        return Vec::new();
    }
    let descriptors = descriptors(case, &claimed);
    if descriptors.is_some_and(|(open, limit)| open < USED_UP * limit) {
        return Vec::new();
    }
    one(claimed, |claimed| {
        let cause = Cause::new(
            "descriptor_exhaustion",
            format!(
                "the process serves no more than about {peak} connections at a time: it has no \
                 descriptors left"
            ),
            claimed,
        )
        .says(format!(
            "they were established and waited while {peak} others were being served, the most ever"
        ))
        .next_step("raise LimitNOFILE / ulimit -n, and close what is over");
        match descriptors {
            Some((open, limit)) => cause.certainty(Certainty::Certain).says(format!(
                "its metrics had process_open_fds at {open} then, of {limit} (process_max_fds)"
            )),
            None => cause.or(
                "slow_accept",
                "the process's open descriptors beside its limit (/proc/PID/limits, or its \
                 metrics: probe record --metrics), or EMFILE in its log",
            ),
        }
    })
}

/// Most descriptors open while they waited, and how many there may be, by the server's own metrics.
pub(super) fn descriptors(case: &Case<'_>, waiting: &[usize]) -> Option<(f64, f64)> {
    let (from_ns, to_ns) = case.span(waiting);
    let open = case.metric("process_open_fds")?;
    let during = open.iter().filter(|(at, _)| (from_ns..=to_ns).contains(at));
    let most = during.map(|(_, value)| *value).max_by(f64::total_cmp)?;
    let limit = case.metric("process_max_fds")?.last()?.1;
    Some((most, limit))
}
