//! What a run comes to, in sentences.

use crate::leak::checkpoint::Gap;
use crate::leak::report::{Followed, Level, is_little, is_load, minutes, stayed_ns};
use crate::leak::stability::Stability;
use crate::leak::trend::Shape;
use crate::report::leak_text::number;

/// What grows beyond its target, in words; `None` if nothing does.
pub(crate) fn growing(followed: &[Followed]) -> Option<String> {
    let growing = rates(followed, |level| level >= Level::AboveTarget && level != Level::Unknown);
    (!growing.is_empty()).then(|| growing.join("; "))
}

fn rates(followed: &[Followed], of: impl Fn(Level) -> bool) -> Vec<String> {
    let found = followed.iter().filter(|found| of(found.level));
    found
        .map(|found| match (found.trend.shape, stayed_ns(&found.points)) {
            (shape, Some(took_ns)) if shape != Shape::Growth => format!(
                "{} grew by {} in {:.0} s, and stayed",
                found.name,
                number(found.trend.growth),
                took_ns as f64 / 1e9
            ),
            _ => {
                let rate = found.trend.per_minute.unwrap_or(0.0);
                format!("{} grow by {rate:.1} a minute", found.name)
            }
        })
        .collect()
}

pub(super) fn conclusion(followed: &[Followed], gaps: &[Gap], stability: &Stability) -> String {
    let mut text = match growing(followed) {
        None => "Nothing that was followed grows beyond its target.".to_owned(),
        Some(growing) => format!("There is a leak: {growing}."),
    };
    let chosen = rates(followed, |level| level == Level::NoTarget);
    if !chosen.is_empty() {
        text.push_str(&format!(
            " Also growing, without a target: {} (a threshold on it decides).",
            chosen.join("; ")
        ));
    }
    let named = |is: &dyn Fn(&Followed) -> bool| {
        let found = followed.iter().filter(|found| is(found));
        let names: Vec<&str> = found.map(|found| found.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(&|found| found.with_load && found.level == Level::Unknown) {
        text.push_str(&format!(" Grows with the open connections, which may be load: {names}."));
    }
    let is_of = |found: &Followed, shape| found.trend.shape == shape && !is_load(&found.name);
    if let Some(names) = named(&|found| is_of(found, Shape::Plateau) && found.level <= Level::Ok) {
        text.push_str(&format!(" Grew and then stopped: {names}."));
    }
    let has_grown_little = |found: &Followed| {
        found.target_per_minute.is_none() && is_little(&found.trend, minutes(&found.points))
    };
    if let Some(names) = named(&|found| is_of(found, Shape::Growth) && has_grown_little(found)) {
        text.push_str(&format!(" Grows, by less than a tenth: {names}."));
    }
    let last = |name: &str| Some(followed.iter().find(|found| found.name == name)?.trend.last);
    if last("pool_idle").is_some_and(|idle| idle <= 0.0) {
        text.push_str(" No idle connection is left in the pool.");
    }
    if let Some(percent) = last("pool_reuse_percent").filter(|percent| *percent <= 80.0) {
        text.push_str(&format!(" Only {percent:.1} % of the pool's connections are used again."));
    }
    for crash in &stability.crashes {
        text.push_str(&format!(" {}", crash.text()));
    }
    if stability.oom_kills > 0 {
        let were = if stability.oom_kills == 1 { "process was" } else { "processes were" };
        text.push_str(&format!(" {} {were} killed for lack of memory.", stability.oom_kills));
    }
    if stability.container_unhealthy > 0 {
        let (bad, looks) = (stability.container_unhealthy, stability.container_looks);
        text.push_str(&format!(
            " The container's health check did not hold in {bad} of {looks} looks."
        ));
    }
    match stability.restarts {
        0 => {}
        1 => text.push_str(" The process was restarted once."),
        times => text.push_str(&format!(" The process was restarted {times} times.")),
    }
    if stability.http_errors > 0 {
        text.push_str(&format!(
            " {} of {} requests failed.",
            stability.http_errors, stability.requests
        ));
    }
    if !gaps.is_empty() {
        let times = if gaps.len() == 1 { "Once" } else { "Several times" };
        text.push_str(&format!(" {times} no sample came for more than 1.5 intervals."));
    }
    if stability.stopped_early {
        text.push_str(" The run was stopped early.");
    }
    text
}
