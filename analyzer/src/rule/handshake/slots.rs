//! The balancer refuses without asking a shard: no slot free, slots leaked, or a race for them.

use super::descriptor_exhaustion::{USED_UP, descriptors};
use super::{Case, Cause, one};
use crate::handshake::attempt::UPGRADE;
use crate::handshake::shape::Shape;
use crate::timeline::Timeline;

/// Of the capacity: so near to it, it is reached.
const FULL: f64 = 0.95;

/// So few connections are no peak.
const FEWEST: i64 = 10;

/// What was so when the refusals came.
struct Scene {
    refused: usize,
    /// Upgraded connections, as the kernel has them: lowest, median, highest at the refusals.
    upgraded: [i64; 3],
    most_ever: i64,
    ended_before: usize,
    /// What the balancer itself said, where its health was recorded.
    capacity: Option<f64>,
    free: Option<f64>,
}

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> =
        case.refused_for_now(open).into_iter().filter(|i| case.never_tried(*i)).collect();
    one(claimed, |claimed| {
        let scene = Scene::of(case, &claimed);
        let shape = case.shape(&claimed);
        let at_limit = matches!(shape, Some(Shape::AtCount { .. }));
        let full = match scene.capacity {
            Some(capacity) => scene.upgraded[1] as f64 >= FULL * capacity,
            None => at_limit,
        };
        if full {
            return exhausted(&scene, claimed);
        }
        let believes_full = match (scene.free, scene.capacity) {
            (Some(free), Some(capacity)) => free <= (1.0 - FULL) * capacity,
            _ => scene.ended_before > 0 && matches!(shape, Some(Shape::Window { .. })),
        };
        if believes_full {
            return leaked(case, &scene, &shape, claimed);
        }
        let at_peak =
            scene.most_ever >= FEWEST && scene.upgraded[0] as f64 >= FULL * scene.most_ever as f64;
        if at_limit || at_peak {
            return limited(case, &scene, claimed);
        }
        raced(&scene, &shape, claimed)
    })
}

fn exhausted(scene: &Scene, claimed: Vec<usize>) -> Cause {
    let summary = format!("all of the balancer's slots were taken, at about {}", scene.upgraded[1]);
    scene
        .tell(Cause::new("slots_exhausted", summary, claimed))
        .next_step("add shards or slots, or let go of idle connections")
}

/// At a count, with slots to spare: something else ran out that each client takes one of, or a guard let
/// no more in.
fn limited(case: &Case<'_>, scene: &Scene, claimed: Vec<usize>) -> Cause {
    let descriptors = descriptors(case, &claimed);
    let (name, so) = match descriptors {
        Some((open, limit)) if open < USED_UP * limit => ("load_shedding", "a guard"),
        _ => ("descriptor_exhaustion", "no descriptors, two of which each client takes"),
    };
    let summary = format!(
        "the balancer has slots to spare, and yet nothing for more than about {} clients: {so}",
        scene.most_ever
    );
    let cause = scene.tell(Cause::new(name, summary, claimed)).next_step(
        "compare its open descriptors with LimitNOFILE, and look for a guard's threshold",
    );
    match descriptors {
        Some((open, limit)) => cause.says(format!(
            "its metrics had process_open_fds at {open} then, of {limit} (process_max_fds)"
        )),
        None => cause.or(
            "load_shedding",
            "the balancer's open descriptors beside its limit (/proc/PID/fd, /proc/PID/limits); a \
             guard on memory or tasks at such a count says so in its log",
        ),
    }
}

fn leaked(case: &Case<'_>, scene: &Scene, shape: &Option<Shape>, claimed: Vec<usize>) -> Cause {
    let mut cause = scene
        .tell(Cause::new(
            "slot_leak",
            "the balancer believes its slots are taken, although connections have ended",
            claimed,
        ))
        .says(format!("{} upgraded connections had ended before", scene.ended_before))
        .next_step("compare the balancer's slot count with the kernel's established upstream legs");
    if let Some(Shape::Window { from_ns, recovered, .. }) = shape {
        cause =
            cause.says(format!("from {} on nearly every attempt was refused", case.time(*from_ns)));
        if *recovered && scene.free.is_none() {
            return cause.or(
                "load_shedding",
                "free slots in the balancer's health body: leaked slots stay, a guard lets go",
            );
        }
    }
    cause
}

/// A race refuses now and then; one that refused all for so long would be no race.
const LONGEST_RACE_NS: i64 = 1_000_000_000;

fn raced(scene: &Scene, shape: &Option<Shape>, claimed: Vec<usize>) -> Cause {
    if let Some(Shape::Window { from_ns, to_ns, failed_within_percent, .. }) = shape
        && to_ns - from_ns >= LONGEST_RACE_NS
    {
        return scene
            .tell(Cause::new(
                "load_shedding",
                "for a while the balancer turned nearly everything away, with slots to spare",
                claimed,
            ))
            .says(format!(
                "{failed_within_percent:.0} % were refused within {:.1} s, hardly any outside",
                (to_ns - from_ns) as f64 / 1e9
            ))
            .next_step("find the balancer's guard (CPU, memory, error rate) and its threshold");
    }
    let cause = scene
        .tell(Cause::new(
            "slot_race",
            "the balancer refuses although there is room: a race for a slot",
            claimed,
        ))
        .next_step(
            "look at how a slot is taken: checked and taken in two steps, without a second try",
        );
    match shape {
        Some(Shape::Spread { percent }) if scene.free.is_some() => {
            cause.says(format!("{percent:.1} % are refused, among successes"))
        }
        _ => cause.or(
            "load_shedding",
            "the balancer's own log: a guard says so; or whether two requests came at the same moment",
        ),
    }
}

impl Scene {
    fn of(case: &Case<'_>, refused: &[usize]) -> Self {
        let front = || case.legs.front.iter().map(|index| case.attempt(*index));
        let spans = front().filter_map(|attempt| Some((attempt.at(UPGRADE)?, attempt.left_ns())));
        let upgraded = Timeline::from_spans(spans);
        let starts = || refused.iter().map(|index| case.attempt(*index).start_ns());
        let mut counts: Vec<i64> = starts().map(|at| upgraded.at(at)).collect();
        counts.sort_unstable();
        let (first, last) = case.span(refused);
        let ended = front().filter(|attempt| attempt.at(UPGRADE).is_some());
        let near = |path| {
            let numbers = case.recording.health_numbers(path).unwrap_or_default();
            // A sample tells of the time since the one before.
            let lowest = numbers
                .iter()
                .filter(|(at, _)| (first..=last + 1_000_000_000).contains(at))
                .map(|(_, value)| *value)
                .min_by(f64::total_cmp);
            lowest.or_else(|| numbers.last().map(|(_, value)| *value))
        };
        Scene {
            refused: refused.len(),
            upgraded: [
                counts.first().copied().unwrap_or(0),
                counts.get(counts.len() / 2).copied().unwrap_or(0),
                counts.last().copied().unwrap_or(0),
            ],
            most_ever: upgraded.peak().unwrap_or(0),
            ended_before: ended.filter(|a| a.left_ns().is_some_and(|at| at < last)).count(),
            capacity: near("].capacity"),
            free: near("].available"),
        }
    }

    fn tell(&self, cause: Cause) -> Cause {
        let [lowest, _, highest] = self.upgraded;
        let cause = cause.says(format!(
            "{} were refused by the balancer without a SYN to any shard, with {lowest} to {highest} \
             connections upgraded (most ever: {})",
            self.refused, self.most_ever
        ));
        match (self.free, self.capacity) {
            (Some(free), Some(capacity)) => cause.says(format!(
                "by its own health {free} of {capacity} slots were free at the fewest"
            )),
            _ => cause,
        }
    }
}
