//! The leak report: trends, checkpoints, gaps, stability, and what growth goes with.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::input::connections::Word;
use crate::input::kept_log::KeptLog;
use crate::input::recording::Recording;
use crate::join::pollers;
use crate::leak::checkpoint::{Checkpoint, Gap, checkpoints, gaps};
use crate::leak::conclusion::conclusion;
use crate::leak::held::{full_time, trend_within};
use crate::leak::related::{Alike, relation};
use crate::leak::source::{Choice, Series, series};
use crate::leak::stability::{Stability, stability};
use crate::leak::trend::{Shape, Trend, trend};
use crate::lives::Lives;
use crate::population::Population;
use crate::report::model::{ServerReport, UnreadableLine, shown_lines};

/// Checkpoints of a run whose interval is not given.
const CHECKPOINTS: i64 = 15;

/// A run shorter than this share of what was planned was stopped early.
const WHOLE: f64 = 0.95;

/// What has no limit of its own and at its rate grows by less than this share of its baseline in the whole
/// run is told, but is no leak: memory of a server that has just started always does.
const LITTLE: f64 = 0.1;

/// The series of the kernel's count of connections.
pub(crate) const ESTABLISHED: &str = "sockets_established";

const PHANTOMS: &str = "phantoms";

/// What the user says of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) interval: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) choices: Vec<Choice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// It grows, and only a threshold of the user's can say what that means.
    NoTarget,
    Good,
    Ok,
    AboveTarget,
    Warning,
    Critical,
    /// Too few samples, or a rate that chance or the number of open connections would explain as well.
    Unknown,
}

impl Level {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Level::NoTarget => "– no target",
            Level::Good => "✓ good",
            Level::Ok => "✓ ok",
            Level::AboveTarget => "! above target",
            Level::Warning => "! warning",
            Level::Critical => "✗ critical",
            Level::Unknown => "? not certain",
        }
    }
}

/// Rates per minute: good below, target, warning above, critical above.
const LIMITS: [(&str, [f64; 4]); 2] =
    [("goroutines", [5.0, 10.0, 20.0, 50.0]), ("descriptors", [2.0, 5.0, 15.0, 30.0])];

pub(crate) fn limits(name: &str) -> Option<&'static [f64; 4]> {
    LIMITS.iter().find(|(known, _)| *known == kind_of(name)).map(|(_, limits)| limits)
}

/// The series' own name, without the port of one of several services: `descriptors_3002`.
pub(crate) fn kind_of(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((kind, port)) if port.parse::<u16>().is_ok() => kind,
        _ => name,
    }
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Followed {
    /// As in thresholds: `leaks.<name>_per_minute`.
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) samples: usize,
    #[serde(flatten)]
    pub(crate) trend: Trend,
    pub(crate) target_per_minute: Option<f64>,
    /// The slope while the connections were at their most, and the lower end of its 95 % interval;
    /// `null` where that was too short.
    pub(crate) held_per_minute: Option<f64>,
    pub(crate) held_low_per_minute: Option<f64>,
    pub(crate) level: Level,
    /// It grows at the times when more connections are open: that may be load.
    pub(crate) with_load: bool,
    /// Thinned for plots: Unix nanoseconds and value.
    pub(crate) points: Vec<(i64, f64)>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct LeakReport {
    pub(crate) name: String,
    pub(crate) interval_s: f64,
    pub(crate) planned: usize,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) followed: Vec<Followed>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) stability: Stability,
    /// Sentences: what grows with what, and what it comes to.
    pub(crate) related: Vec<String>,
    pub(crate) conclusion: String,
    pub(crate) unreadable: usize,
    pub(crate) unreadable_lines: Vec<UnreadableLine>,
}

/// `None` where nothing was followed over time.
pub(crate) fn of(
    recording: Option<(&Recording, &Population)>,
    servers: &[ServerReport],
    logs: &[KeptLog],
    plan: &Plan,
) -> anyhow::Result<Option<LeakReport>> {
    let all = series(
        recording.map(|(recording, _)| recording),
        recording.map(|(_, population)| population),
        servers,
        logs,
        &plan.choices,
    )?;
    let times = || all.iter().flat_map(|series| series.points.iter().map(|point| point.0));
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(None) };
    let observed_ns = (last - first).max(1);
    let planned_ns = plan.duration.map_or(observed_ns, ns);
    let interval_ns = plan.interval.map_or((planned_ns / CHECKPOINTS).max(1), ns);
    let planned = ((planned_ns as f64 / interval_ns as f64).round() as usize).clamp(1, 10_000);

    let polled: Vec<&Series> = all.iter().filter(|series| series.polled).collect();
    // Without a given interval the pages' own pace tells what is late.
    let late_ns = plan.interval.map_or_else(|| usual_pace(&polled), ns);
    let mut stability = stability(recording.map(|(recording, _)| recording), logs)?;
    stability.observed_s = observed_ns as f64 / 1e9;
    stability.stopped_early = (observed_ns as f64) < planned_ns as f64 * WHOLE
        || recording.is_some_and(|(recording, _)| recording.is_cut_off());
    let established = all.iter().find(|series| series.name == ESTABLISHED);
    let full = established.and_then(|series| full_time(&series.points));
    let load = load(servers, established);
    let followed: Vec<Followed> = all.iter().filter_map(|one| followed(one, full, &load)).collect();
    let checkpoints = checkpoints(&all, interval_ns, planned);
    let gaps = gaps(&all, late_ns);
    let related = related(recording, &all, &followed)?;
    let unreadable = || logs.iter().flat_map(|log| &log.unreadable);
    let mut names: Vec<String> = logs.iter().map(|log| log.path.clone()).collect();
    names.extend(recording.map(|(recording, _)| recording.name.clone()));
    Ok(Some(LeakReport {
        name: names.join(", "),
        interval_s: interval_ns as f64 / 1e9,
        planned,
        conclusion: conclusion(&followed, &gaps, &stability),
        checkpoints,
        gaps,
        stability,
        related,
        followed,
        unreadable: unreadable().count(),
        unreadable_lines: shown_lines(unreadable()),
    }))
}

fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4).max(1)
}

/// The median time between two samples, of the series with most of them.
fn usual_pace(polled: &[&Series]) -> i64 {
    let Some(best) = polled.iter().max_by_key(|series| series.points.len()) else {
        return i64::MAX / 4;
    };
    let mut paces: Vec<i64> =
        best.points.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|pace| *pace > 0).collect();
    paces.sort_unstable();
    // Once a second or faster, a single late answer is no gap worth a line.
    paces.get(paces.len() / 2).map_or(i64::MAX / 4, |pace| (*pace).max(2_000_000_000))
}

fn followed(series: &Series, full: Option<(i64, i64)>, load: &[(i64, f64)]) -> Option<Followed> {
    let mut trend = trend(&series.points)?;
    let limits = limits(&series.name);
    let little = is_little(&trend, minutes(&series.points));
    let mut level = level(&series.name, &trend, little, limits);
    // Whom nobody cleans up is still there when no more come.
    if level == Level::Ok && series.name == PHANTOMS && stayed_ns(&series.points).is_some() {
        trend.shape = Shape::Plateau;
        level = Level::Warning;
    }
    let load = at_times_of(&series.points, load);
    let with_load = comes_with_load(&series.name) && relation(&series.points, &load).is_some();
    let grows = level > Level::Ok || level == Level::NoTarget;
    let level = if with_load && grows { Level::Unknown } else { level };
    let held = full.and_then(|full| trend_within(&series.points, full));
    Some(Followed {
        name: series.name.clone(),
        source: series.source.clone(),
        samples: series.points.len(),
        level,
        with_load,
        target_per_minute: limits.map(|limits| limits[1]),
        held_per_minute: held.and_then(|held| held.per_minute),
        held_low_per_minute: held.and_then(|held| held.low_per_minute),
        trend,
        points: thinned(&series.points),
    })
}

fn level(name: &str, trend: &Trend, is_little: bool, limits: Option<&[f64; 4]>) -> Level {
    let (Some(rate), Some(low)) = (trend.per_minute, trend.low_per_minute) else {
        return Level::Unknown;
    };
    let Some([good, target, warning, critical]) = limits else {
        // No limit of their own: growth that chance does not explain is worth a look, but not of what
        // is load or comes and goes by itself.
        let grows = trend.shape == Shape::Growth && !is_load(name) && !is_little;
        return match grows {
            true if is_held(name) => Level::Warning,
            true => Level::NoTarget,
            false => Level::Ok,
        };
    };
    if rate >= *target && low <= 0.0 {
        return Level::Unknown;
    }
    match rate {
        rate if rate < *good => Level::Good,
        rate if rate < *target => Level::Ok,
        rate if rate <= *warning => Level::AboveTarget,
        rate if rate <= *critical => Level::Warning,
        _ => Level::Critical,
    }
}

pub(super) fn is_little(trend: &Trend, minutes: f64) -> bool {
    trend.per_minute.is_none_or(|rate| rate * minutes < trend.baseline.abs() * LITTLE)
}

/// How long a number took to come from where it began to where it was for the last quarter of the time;
/// `None` if it was not above its beginning all that quarter.
pub(super) fn stayed_ns(points: &[(i64, f64)]) -> Option<i64> {
    let (first, last) = (points.first()?, points.last()?);
    let begin = last.0 - (last.0 - first.0) / 4;
    let quarter = &points[points.partition_point(|point| point.0 < begin)..];
    let least = quarter.iter().map(|point| point.1).min_by(f64::total_cmp)?;
    if least <= first.1 {
        return None;
    }
    let from = points.iter().rfind(|point| point.1 <= first.1)?;
    let until = points.iter().find(|point| point.0 > from.0 && point.1 >= least)?;
    Some(until.0 - from.0)
}

pub(super) fn minutes(points: &[(i64, f64)]) -> f64 {
    let (first, last) = (points.first(), points.last());
    first.zip(last).map_or(0.0, |(first, last)| (last.0 - first.0) as f64 / 60e9)
}

/// What a process holds, or seems to, and should give back. A number of the user's choice may be anything: a
/// time, a total, a share.
fn is_held(name: &str) -> bool {
    matches!(kind_of(name), "memory_mb" | "sockets" | "threads" | PHANTOMS)
        || name.starts_with("sockets_")
}

/// What comes and goes with the clients.
pub(super) fn is_load(name: &str) -> bool {
    matches!(
        name,
        ESTABLISHED | "cpu_percent" | "pool_idle" | "pool_reuse_percent" | "proxy_connections"
    )
}

/// The open connections over time: as they were at each poll of the health, else at each reading of the
/// counters.
fn load(servers: &[ServerReport], established: Option<&Series>) -> Vec<(i64, f64)> {
    match servers.first() {
        Some(server) if !server.series.is_empty() => {
            let points = server.series.iter();
            points.map(|point| (point.at_unix_ns, point.kernel_high as f64)).collect()
        }
        _ => established.map_or(Vec::new(), |series| series.points.clone()),
    }
}

/// One series at the times of another, on the lines between its own.
fn at_times_of(points: &[(i64, f64)], known: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let at = |at: i64| {
        let next = known.partition_point(|one| one.0 <= at);
        let before = known[next.checked_sub(1)?];
        let Some(after) = known.get(next) else { return Some(before.1) };
        let share = (at - before.0) as f64 / (after.0 - before.0) as f64;
        Some(before.1 + (after.1 - before.1) * share)
    };
    points.iter().filter_map(|point| Some((point.0, at(point.0)?))).collect()
}

/// What each open connection takes some of. Phantoms and sockets that are over are none of that.
fn comes_with_load(name: &str) -> bool {
    !is_load(name) && name != PHANTOMS && !name.starts_with("sockets_")
}

fn thinned(points: &[(i64, f64)]) -> Vec<(i64, f64)> {
    const MOST: usize = 400;
    let step = points.len().div_ceil(MOST).max(1);
    let mut thin: Vec<(i64, f64)> = points.iter().copied().step_by(step).collect();
    if let (Some(kept), Some(last)) = (thin.last(), points.last())
        && kept.0 != last.0
    {
        thin.push(*last);
    }
    thin
}

/// What each growing number grows with.
fn related(
    recording: Option<(&Recording, &Population)>,
    all: &[Series],
    followed: &[Followed],
) -> anyhow::Result<Vec<String>> {
    let phantoms = all.iter().find(|series| series.name == PHANTOMS);
    let ended = recording.map(|(recording, of)| ended_connections(recording, of)).transpose()?;
    let ended = ended.unwrap_or_default();
    let mut sentences = Vec::new();
    for (series, found) in all.iter().zip(followed) {
        if found.trend.growth <= 0.0 || series.name == PHANTOMS || !series.polled {
            continue;
        }
        let against = [
            ("phantom", phantoms.map(|p| p.points.as_slice())),
            ("connection that ended", Some(ended.as_slice())),
        ];
        for (what, with) in against {
            let Some(found) = with.and_then(|with| relation(&series.points, with)) else {
                continue;
            };
            let how = match found.alike {
                Alike::Correlated(r) => format!("in the same stretches of time (r = {r:.2})"),
                Alike::InStep => "in step".to_owned(),
                Alike::Evenly => "evenly".to_owned(),
            };
            sentences
                .push(format!("{} grow by {:.2} for each {what}, {how}", series.name, found.each));
        }
    }
    Ok(sentences)
}

/// How many accepted connections had ended, over time; also those that their process never closes. Of
/// two ends on the same host one is enough, and requests for pages are no connections of clients.
fn ended_connections(
    recording: &Recording,
    population: &Population,
) -> anyhow::Result<Vec<(i64, f64)>> {
    let connections = &recording.connections;
    let members = population.members(connections);
    let lives = Lives::new(connections, &members, &pollers(&recording.health)?);
    let passive = connections.words(Word::Role).iter().position(|role| **role == *"passive");
    let at: Vec<i64> = lives
        .ended_between(i64::MIN, i64::MAX)
        .filter(|life| connections.word_place(Word::Role, life.row as usize) == passive)
        .map(|life| life.established_to_ns)
        .collect();
    let mut points = vec![(recording.clock.unix_ns(recording.meta.started_mono_ns), 0.0)];
    points.extend(at.iter().zip(1..).map(|(at, n)| (recording.clock.unix_ns(*at), f64::from(n))));
    let end = recording.clock.unix_ns(recording.ended_ns()?);
    points.push((end, at.len() as f64));
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: [i32; 8]) -> Option<i64> {
        let points = (0..).zip(values);
        stayed_ns(&points.map(|(at, value)| (at, f64::from(value))).collect::<Vec<_>>())
    }

    #[test]
    fn what_stays_is_told_from_what_comes_and_goes() {
        assert_eq!(of([0, 0, 3, 7, 7, 7, 7, 7]), Some(2));
        assert_eq!(of([2, 7, 2, 9, 7, 6, 7, 7]), Some(1));
        assert_eq!(of([0, 0, 3, 7, 7, 7, 7, 0]), None);
        assert_eq!(of([0, 0, 3, 7, 0, 0, 0, 7]), None);
        assert_eq!(of([4, 4, 4, 4, 4, 4, 4, 4]), None);
        assert_eq!(stayed_ns(&[]), None);
    }
}
