//! The balancer refuses without asking a shard: no slot free, slots leaked, or a race for them.

use super::{Case, Cause, one};
use crate::handshake::attempt::UPGRADE;
use crate::handshake::shape::Shape;
use crate::timeline::Timeline;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> =
        case.refused_for_now(open).into_iter().filter(|i| case.never_tried(*i)).collect();
    one(claimed, |claimed| {
        let upgraded = upgraded(case);
        let peak = upgraded.steps().map(|(_, count)| count).max().unwrap_or(0);
        let mut at_failure: Vec<i64> = claimed
            .iter()
            .map(|index| {
                let at = case.attempt(*index).start_ns;
                upgraded.extremes(at, at).1
            })
            .collect();
        at_failure.sort_unstable();
        let lowest = at_failure.first().copied().unwrap_or(0);
        let median = at_failure.get(at_failure.len() / 2).copied().unwrap_or(0);
        let evidence = format!(
            "{} were refused by the balancer without a SYN to any shard, with {lowest} to {} \
             connections upgraded (most ever: {peak})",
            claimed.len(),
            at_failure.last().copied().unwrap_or(0)
        );
        let free = free_slots(case);
        match case.shape(&claimed) {
            Some(Shape::AtCount { limit, .. }) if median * 20 >= peak * 19 => Cause::new(
                "slots_exhausted",
                format!("all of the balancer's slots were taken, at {limit}"),
                claimed,
            )
            .says(evidence)
            .next_step("add shards or slots, or let go of idle connections"),
            Some(Shape::Window { from_ns, recovered, .. }) => {
                let cause = Cause::new(
                    "slot_leak",
                    "the balancer believes its slots are taken, although connections have ended",
                    claimed,
                )
                .says(evidence)
                .says(format!("from {} on nearly every attempt was refused", case.time(from_ns)))
                .next_step(
                    "compare the balancer's slot count with the kernel's established upstream legs",
                );
                let cause = match free {
                    Some(free) => cause.says(free),
                    None => cause,
                };
                if recovered {
                    return cause.or(
                        "load_shedding",
                        "the balancer's own slot count at that time: leaked slots stay, a guard lets go",
                    );
                }
                cause
            }
            _ => {
                let cause = Cause::new(
                    "slot_race",
                    "the balancer refuses now and then although there is room: a race for a slot",
                    claimed,
                )
                .says(evidence)
                .says("refusals lie among successes, with the shards far from full")
                .next_step(
                    "look at how a slot is taken: checked and taken in two steps, without a second try",
                );
                match free {
                    Some(free) => cause.says(free),
                    None => cause.or(
                        "load_shedding",
                        "free slots in the balancer's health body, recorded with --health",
                    ),
                }
            }
        }
    })
}

fn upgraded(case: &Case<'_>) -> Timeline {
    let changes = case.legs.front.iter().flat_map(|index| {
        let attempt = case.attempt(*index);
        let up = attempt.at(UPGRADE).map(|at| (at, 1));
        let down = up.and(attempt.closed_ns).map(|at| (at, -1));
        up.into_iter().chain(down)
    });
    Timeline::from_changes(0, changes.collect())
}

/// What the balancer itself said was free.
fn free_slots(case: &Case<'_>) -> Option<String> {
    let numbers = case.recording.health_numbers(".available").ok()?;
    let lowest = numbers.iter().map(|(_, value)| *value).min_by(f64::total_cmp)?;
    (lowest > 0.0).then(|| format!("its own health never showed fewer than {lowest} free"))
}
