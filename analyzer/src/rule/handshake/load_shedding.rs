//! A guard on CPU, memory or tasks turns everything away for a while.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;
use crate::handshake::shape::Shape;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let refused = case.refused_for_now(open);
    one(refused, |claimed| {
        let legs = case.both_legs(&claimed);
        let quick = case.median_ms(claimed.iter().copied(), Attempt::answer_ns);
        let (from_ns, to_ns) = case.span(&claimed);
        let shape = case.shape(&claimed);
        let which = if legs.is_some() || case.legs.linked > 0 {
            "the logs of the shards that answered: a guard says so"
        } else {
            "which server answered each: record on the shards as well"
        };
        let mut cause = match &shape {
            Some(Shape::Window { from_ns, to_ns, failed_within_percent, recovered }) => {
                let until = if *recovered {
                    format!(" to {}", case.time(*to_ns))
                } else {
                    " to the end".to_owned()
                };
                Cause::new(
                    "load_shedding",
                    format!("from {}{until} nearly everything was turned away", case.time(*from_ns)),
                    claimed,
                )
                .says(format!("{failed_within_percent:.0} % failed in that time, hardly any outside"))
            }
            Some(Shape::Spread { percent }) => {
                Cause::new("refused_in_part", format!("{percent:.1} % are refused, all along"), claimed)
                    .says("the refusals have no shape in time or load: a share of requests, or one server of several")
                    .or("load_shedding", which)
            }
            _ => Cause::new("refused_in_part", "some are refused by a 5xx status", claimed)
                .or("load_shedding", "more failures, or the server's own log of the examples"),
        };
        if let Some(ms) = quick {
            cause = cause.says(format!("half were answered within {ms:.1} ms: refused, not slow"));
        }
        if let Some(legs) = legs {
            cause = cause.says(legs);
        }
        for path in ["cpu.percentage", "memory.percentage", "goroutines.current"] {
            if let Some((within, outside)) = means(case, path, from_ns, to_ns) {
                let evidence =
                    format!("{path} was {within:.1} on average meanwhile, {outside:.1} otherwise");
                cause =
                    if within > outside * 1.2 { cause.says(evidence) } else { cause.but(evidence) };
            }
        }
        cause.next_step(
            "find the guard and its threshold; its metric at these times says which one it was",
        )
    })
}

/// Averages of a health number within an interval and outside.
fn means(case: &Case<'_>, path: &str, from_ns: i64, to_ns: i64) -> Option<(f64, f64)> {
    let numbers = case.recording.health_numbers(path).ok()?;
    let mean = |inside: bool| {
        let chosen: Vec<f64> = numbers
            .iter()
            .filter(|(at, _)| (from_ns..=to_ns).contains(at) == inside)
            .map(|(_, value)| *value)
            .collect();
        (!chosen.is_empty()).then(|| chosen.iter().sum::<f64>() / chosen.len() as f64)
    };
    Some((mean(true)?, mean(false)?))
}
