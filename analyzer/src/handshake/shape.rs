//! The shape of failures over time and load. The same status with another shape has another cause.

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

/// What failures are held against: the attempts that did not fail.
#[derive(Debug)]
pub(crate) struct Successes {
    /// When they began, ascending.
    starts_ns: Vec<i64>,
    upgraded: Timeline,
}

impl Successes {
    /// Of these attempts, all of one kind of service.
    pub(crate) fn among(attempts: &Attempts<'_>, indices: &[usize]) -> Self {
        let each = || {
            let attempts = indices.iter().map(|index| attempts.get(*index));
            attempts.filter(|attempt| !attempt.failed())
        };
        let mut starts_ns: Vec<i64> = each().map(|attempt| attempt.start_ns()).collect();
        starts_ns.sort_unstable();
        let spans = each().filter_map(|attempt| Some((attempt.at(UPGRADE)?, attempt.left_ns())));
        Self { starts_ns, upgraded: Timeline::from_spans(spans) }
    }

    /// How many began before.
    fn before(&self, at_ns: i64) -> usize {
        self.starts_ns.partition_point(|start| *start < at_ns)
    }

    /// How many began until then, then included.
    fn until(&self, at_ns: i64) -> usize {
        self.starts_ns.partition_point(|start| *start <= at_ns)
    }
}

/// `failures` are indices into the attempts.
pub(crate) fn of(
    attempts: &Attempts<'_>,
    successes: &Successes,
    failures: &[usize],
) -> Option<Shape> {
    if failures.len() < ENOUGH {
        return None;
    }
    let mut starts_ns: Vec<i64> =
        failures.iter().map(|index| attempts.get(*index).start_ns()).collect();
    starts_ns.sort_unstable();
    let (from_ns, to_ns) = (*starts_ns.first()?, *starts_ns.last()?);
    let all = successes.starts_ns.len() + failures.len();
    // A limit first: a service at its limit also fails from some time on.
    let peak = successes.upgraded.peak().unwrap_or(0);
    let count_at = |index: &usize| successes.upgraded.at(decided_ns(attempts, *index));
    let mut counts: Vec<i64> = failures.iter().map(count_at).collect();
    counts.sort_unstable();
    let near = |count: &i64| *count >= peak - (peak / 50).max(1);
    let at_peak = counts.iter().filter(|count| near(count)).count();
    let ever_below = !successes.starts_ns.is_empty();
    let last_ns = successes.starts_ns.last().map_or(to_ns, |last| to_ns.max(*last));
    let held_at_peak = stays_at(&successes.upgraded, peak, last_ns);
    if peak >= 10 && ever_below && at_peak as f64 >= NEARLY * counts.len() as f64 && held_at_peak {
        return Some(Shape::AtCount {
            limit: percentile(&counts, 1.0).unwrap_or(peak),
            share_percent: 100.0 * at_peak as f64 / counts.len() as f64,
        });
    }
    if let Some(shape) = sawtooth(successes, &starts_ns) {
        return Some(shape);
    }
    let within = failures.len() + successes.until(to_ns) - successes.before(from_ns);
    let share = failures.len() as f64 / within as f64;
    if share >= NEARLY && all > within {
        return Some(Shape::Window {
            from_ns,
            to_ns,
            failed_within_percent: 100.0 * share,
            recovered: last_ns > to_ns,
        });
    }
    Some(Shape::Spread { percent: 100.0 * failures.len() as f64 / all as f64 })
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
/// that fails by chance also lets about the same number in, but in no order. `failed_ns` is when those that
/// failed began, ascending.
fn sawtooth(successes: &Successes, failed_ns: &[i64]) -> Option<Shape> {
    const SECOND: i64 = 1_000_000_000;
    let seconds = failed_ns.chunk_by(|a, b| a.div_euclid(SECOND) == b.div_euclid(SECOND));
    let mut admitted: Vec<i64> = seconds
        .map(|failed| {
            let from_ns = failed[0].div_euclid(SECOND) * SECOND;
            (successes.before(from_ns + SECOND) - successes.before(from_ns)) as i64
        })
        .collect();
    admitted.sort_unstable();
    // A window that begins and ends within a second lets some in there, and none between.
    let lets_some_in = admitted.first().is_some_and(|fewest| *fewest > 0);
    let per_second = percentile(&admitted, 0.5).filter(|_| lets_some_in)?;
    let like = admitted.iter().filter(|n| (**n - per_second).abs() <= (per_second / 5).max(1));
    // Who began in the same nanosecond as a failure began before it.
    let runs = failed_ns.chunk_by(|a, b| successes.until(*a) == successes.until(*b)).count();
    let first_is_failed = successes.until(*failed_ns.first()?) == 0;
    let last_is_failed = successes.until(*failed_ns.last()?) == successes.starts_ns.len();
    let changes = 2 * runs - usize::from(first_is_failed) - usize::from(last_is_failed);
    (admitted.len() >= 3 && like.count() * 3 >= admitted.len() * 2 && changes <= 3 * admitted.len())
        .then_some(Shape::Sawtooth { per_second })
}
