//! Too little CPU: whatever needs the process takes long, for everybody, while its CPU is used up.

use std::collections::BTreeMap;

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

/// A process with CPU to spare answers half of its handshakes sooner.
const SLOW_MS: f64 = 100.0;
/// Percent of what it may use, by its own word; or of one processor, used and waited for.
const BUSY: f64 = 70.0;
/// Percent of the processor time that it wanted, and had to wait for.
const WAITED: f64 = 20.0;

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
    let reported = most_reported(case, (from_ns, to_ns)).filter(|percent| *percent >= BUSY);
    let waits = longest_waits(case, (from_ns, to_ns));
    if busy_ms < SLOW_MS || (reported.is_none() && waits.is_none()) {
        return Vec::new();
    }
    one(claimed, |claimed| {
        let mut cause = Cause::new(
            "cpu_starvation",
            format!(
                "between {} and {} the process had too little CPU: everything it does was slow",
                case.time(from_ns),
                case.time(to_ns)
            ),
            claimed,
        );
        if let Some(percent) = reported {
            cause = cause.says(format!("it reported up to {percent:.0} % CPU then"));
        }
        if let Some(Waits { who, used, waited }) = waits {
            cause = cause.says(format!(
                "by the kernel {who} ran {used:.0} % of the time then, and for {waited:.0} % was ready \
                 and had no processor"
            ));
        }
        cause.says(format!("half of all attempts then waited {busy_ms:.0} ms or longer")).next_step(
            "look at CPU limits (cgroup throttling), neighbours, and what ran at that time",
        )
    })
}

/// The most CPU that the health bodies tell of.
fn most_reported(case: &Case<'_>, (from_ns, to_ns): (i64, i64)) -> Option<f64> {
    // A sample tells of the time since the one before, so the first one after counts as well.
    let cpu = case.recording.health_numbers("cpu.percentage").unwrap_or_default();
    let after = cpu.iter().position(|(at, _)| *at >= to_ns).map_or(cpu.len(), |first| first + 1);
    let during = cpu[..after].iter().filter(|(at, _)| *at >= from_ns);
    during.map(|(_, percent)| *percent).max_by(f64::total_cmp)
}

/// Between two looks at the processes that listen on a port, in percent of one processor.
struct Waits<'a> {
    who: &'a str,
    used: f64,
    waited: f64,
}

/// The most that any of them waited for a processor, if that was much of what it wanted.
fn longest_waits<'a>(case: &Case<'a>, (from_ns, to_ns): (i64, i64)) -> Option<Waits<'a>> {
    let used = case.metric_by_page("process_cpu_seconds_total");
    let waited = case.metric_by_page("process_run_queue_seconds_total");
    let looks = waited.iter().flat_map(|(page, waited)| {
        let used: BTreeMap<i64, f64> = used.get(page).into_iter().flatten().copied().collect();
        waited.windows(2).filter_map(move |pair| {
            let [(before_ns, waited_before), (at_ns, waited)] = *pair else { return None };
            let percent = |seconds: f64| 100.0 * seconds / ((at_ns - before_ns) as f64 / 1e9);
            let is_then = at_ns >= from_ns && before_ns <= to_ns && at_ns > before_ns;
            is_then.then_some(Waits {
                who: page.strip_prefix("kernel: ").unwrap_or(page),
                used: percent(used.get(&at_ns)? - used.get(&before_ns)?),
                waited: percent(waited - waited_before),
            })
        })
    });
    let starved = looks.filter(|look| {
        let wanted = look.used + look.waited;
        wanted >= BUSY && look.waited >= WAITED / 100.0 * wanted
    });
    starved.max_by(|one, other| one.waited.total_cmp(&other.waited))
}

/// From established to the answer, or to the end.
fn waited_ns(attempt: Attempt<'_>) -> Option<i64> {
    use crate::handshake::attempt::{ESTABLISHED, RESPONSE};
    let until = attempt.at(RESPONSE).or(attempt.left_ns())?;
    Some(until - attempt.at(ESTABLISHED)?)
}
