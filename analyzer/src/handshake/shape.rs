//! The shape of failures over time and load. The same status with another shape has another cause.

use std::collections::BTreeMap;

use crate::handshake::attempt::{Attempts, ESTABLISHED, RESPONSE, UPGRADE};
use crate::handshake::stage::percentile;
use crate::timeline::Timeline;

/// How a group of failures lies among all attempts at the same service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// From the first failure to the last nearly every attempt failed, and hardly any outside.
    Window { from_ns: i64, to_ns: i64, failed_within_percent: f64, recovered: bool },
    /// Attempts failed when about so many were upgraded, and hardly any below.
    AtCount { limit: i64, share_percent: f64 },
    /// Again and again so many succeed, then the rest of the interval fails.
    Sawtooth { per_second: i64 },
    /// Among successes, all along.
    Spread { percent: f64 },
}

/// Nearly every, hardly any.
const NEARLY: f64 = 0.95;
/// Too few failures have no shape.
const ENOUGH: usize = 5;

/// `failures` and `all` are indices into the attempts, all of one kind of service.
pub(crate) fn of(attempts: &Attempts<'_>, all: &[usize], failures: &[usize]) -> Option<Shape> {
    if failures.len() < ENOUGH {
        return None;
    }
    let start = |index: &usize| attempts.get(*index).start_ns();
    let upgraded = upgraded(attempts, all);
    // A limit first: a service at its limit also fails from some time on.
    let peak = upgraded.peak().unwrap_or(0);
    let count_at = |index: &usize| {
        let at_ns = decided_ns(attempts, *index);
        upgraded.at(at_ns)
    };
    let mut counts: Vec<i64> = failures.iter().map(count_at).collect();
    counts.sort_unstable();
    let near = |count: &i64| *count >= peak - (peak / 50).max(1);
    let at_peak = counts.iter().filter(|count| near(count)).count();
    let ever_below = all.len() > failures.len();
    let last_ns = all.iter().map(start).max().unwrap_or(0);
    let held_at_peak = stays_at(&upgraded, peak, last_ns);
    if peak >= 10 && ever_below && at_peak as f64 >= NEARLY * counts.len() as f64 && held_at_peak {
        return Some(Shape::AtCount {
            limit: percentile(&counts, 1.0).unwrap_or(peak),
            share_percent: 100.0 * at_peak as f64 / counts.len() as f64,
        });
    }
    if let Some(shape) = sawtooth(attempts, all, failures) {
        return Some(shape);
    }
    let (from_ns, to_ns) = (failures.iter().map(start).min()?, failures.iter().map(start).max()?);
    let within = all.iter().filter(|index| (from_ns..=to_ns).contains(&start(index))).count();
    let outside = all.len() - within;
    let share = failures.len() as f64 / within as f64;
    if share >= NEARLY && outside > 0 {
        return Some(Shape::Window {
            from_ns,
            to_ns,
            failed_within_percent: 100.0 * share,
            recovered: all.iter().any(|index| start(index) > to_ns),
        });
    }
    Some(Shape::Spread { percent: 100.0 * failures.len() as f64 / all.len() as f64 })
}

/// Upgraded connections over time.
fn upgraded(attempts: &Attempts<'_>, all: &[usize]) -> Timeline {
    let spans = all.iter().filter_map(|index| {
        let attempt = attempts.get(*index);
        Some((attempt.at(UPGRADE)?, attempt.left_ns()))
    });
    Timeline::from_spans(spans)
}

/// Whether it stayed at its peak rather than passed by it: a load that just ends is no limit.
fn stays_at(upgraded: &Timeline, peak: i64, last_ns: i64) -> bool {
    let near = peak - (peak / 50).max(1);
    let next = upgraded.steps().skip(1).chain([(last_ns, 0)]);
    let at_peak: i64 = upgraded
        .steps()
        .zip(next)
        .filter(|((_, count), _)| *count >= near)
        .map(|((from, _), (to, _))| (to - from).max(0))
        .sum();
    let first = upgraded.steps().find(|(_, count)| *count >= near).map_or(last_ns, |(at, _)| at);
    let climb = first - upgraded.steps().next().map_or(last_ns, |(at, _)| at);
    // Climbing on at the same pace it would have spent 2 % of the climb there.
    at_peak > climb / 10
}

/// When the server had decided on an attempt: at its answer, else on its arrival.
fn decided_ns(attempts: &Attempts<'_>, index: usize) -> i64 {
    let attempt = attempts.get(index);
    attempt.at(RESPONSE).or(attempt.at(ESTABLISHED)).unwrap_or(attempt.start_ns())
}

/// In most seconds with failures the same number is let in, and the failures come in runs: a share
/// that fails by chance also lets about the same number in, but in no order.
fn sawtooth(attempts: &Attempts<'_>, all: &[usize], failures: &[usize]) -> Option<Shape> {
    const SECOND: i64 = 1_000_000_000;
    let mut failed = failures.to_vec();
    failed.sort_unstable();
    let mut in_order: Vec<(i64, bool)> = all
        .iter()
        .map(|index| (attempts.get(*index).start_ns(), failed.binary_search(index).is_ok()))
        .collect();
    in_order.sort_unstable();
    let mut seconds: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (at, failed) in &in_order {
        let (good, bad) = seconds.entry(at.div_euclid(SECOND)).or_default();
        *if *failed { bad } else { good } += 1;
    }
    let mut admitted: Vec<i64> =
        seconds.values().filter(|(_, bad)| *bad > 0).map(|(good, _)| *good).collect();
    admitted.sort_unstable();
    // A window that begins and ends within a second lets some in there, and none between.
    let lets_some_in = admitted.first().is_some_and(|fewest| *fewest > 0);
    let per_second = percentile(&admitted, 0.5).filter(|_| lets_some_in)?;
    let like = admitted.iter().filter(|n| (**n - per_second).abs() <= (per_second / 5).max(1));
    let runs = in_order.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    (admitted.len() >= 3 && like.count() * 3 >= admitted.len() * 2 && runs <= 3 * admitted.len())
        .then_some(Shape::Sawtooth { per_second })
}
