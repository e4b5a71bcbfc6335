//! Every figure that a threshold can be set on, and its value in what was analysed.

use crate::client::report::ClientReport;
use crate::client::spread::Latency;
use crate::leak::report::{ESTABLISHED, Followed, LeakReport, kind_of};
use crate::report::handshake::{self, HandshakeReport};
use crate::report::model::{Magnitude, Point, ServerReport};
use crate::report::shard::ShardReport;

/// More than this share of samples that could not be judged leaves "nothing found" open.
const UNJUDGED_PERCENT: usize = 10;

/// What was analysed. Where there are several of a kind, the worst decides.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) servers: Vec<&'a ServerReport>,
    pub(crate) handshakes: Vec<&'a HandshakeReport>,
    /// From the SYN to the answer, of each capture that has any.
    pub(crate) handshake_times: Vec<Latency>,
    pub(crate) shards: Vec<&'a ShardReport>,
    pub(crate) leaks: Vec<&'a LeakReport>,
    pub(crate) clients: Option<&'a ClientReport>,
}

impl<'a> Subject<'a> {
    pub(crate) fn of_handshakes(reports: &'a [HandshakeReport]) -> Self {
        Self {
            handshakes: reports.iter().collect(),
            handshake_times: reports.iter().filter_map(|found| found.connect.latency()).collect(),
            ..Self::default()
        }
    }
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    pub(crate) value: Option<f64>,
    pub(crate) unit: &'static str,
    /// So much was seen that a value within the limit proves something.
    pub(crate) complete: bool,
    /// Chance does not explain a value beyond the limit.
    pub(crate) certain: bool,
}

impl Measure {
    fn of(value: Option<f64>, unit: &'static str) -> Self {
        Measure { value, unit, complete: true, certain: true }
    }
}

/// Name and meaning.
pub(crate) const FIGURES: &[(&str, &str)] = &[
    ("phantoms.max", "most phantoms at one time"),
    ("phantoms.max_percent", "the same, of what was reported then, in %"),
    ("phantoms.end", "phantoms at the last sample"),
    ("reverse_phantoms.max", "most established connections that were not reported"),
    ("reverse_phantoms.max_percent", "the same, in %"),
    ("unclosed.max", "most sockets that were over but never closed by their process"),
    ("unclosed.max_percent", "the same, in %"),
    ("end.kernel", "connections that the kernel held at the last sample"),
    ("end.reported", "connections that the server reported at the last sample"),
    ("end.drained_s", "seconds from the clients' last close until both were 0"),
    ("handshake.failed", "handshakes that failed, as the kernel saw it"),
    ("handshake.failed_percent", "the same, in % of the attempts"),
    ("handshake.p50_ms", "median from the SYN to the answer, of the upgraded, in ms"),
    ("handshake.p99_ms", "99th percentile of the same, in ms"),
    ("shards.imbalance_percent", "100·(max − min)/max of the shards at the fullest time"),
    ("clients.attempted", "attempts by the clients' own word"),
    ("clients.failed", "those that failed"),
    ("clients.success_rate", "successful of the attempted, from 0 to 1"),
    ("clients.errors_percent", "failed, or ended by the server or the network, in %"),
    ("clients.unmatched", "clients that no capture has, though they had an address"),
    ("clients.connect_p50_ms", "also mean, p95, p99, max: from start to upgraded, in ms"),
    ("clients.round_trip_mean_ms", "also p50, p95, p99, max: message to answer, in ms"),
    ("leaks.goroutines_per_minute", "robust slope; also of every other series by its name"),
    ("leaks.descriptors_per_minute", "open descriptors"),
    ("leaks.memory_mb_per_minute", "resident memory in MiB"),
    ("leaks.memory_mb_growth", "final less baseline; also of every other series"),
    ("leaks.memory_mb_peak_growth", "highest less baseline; also of every other series"),
    ("leaks.memory_mb_held_per_minute", "slope while all connections stay; also of every other"),
    ("leaks.memory_kb_per_connection", "highest memory less baseline, in kB of 1,000 bytes"),
    ("leaks.cpu_percent_max", "highest value; also of every other series"),
    ("leaks.cpu_percent_mean", "mean over time; also of every other series"),
    ("leaks.phantoms_per_minute", "phantoms"),
    ("leaks.sockets_close_wait_per_minute", "sockets by kernel state"),
    ("leaks.pool_idle_final", "last value; also of every other series"),
    ("leaks.pool_reuse_percent_final", "connections of the pool that were used again"),
    ("leaks.http_errors", "health and metrics requests without a good answer"),
    ("leaks.restarts", "times the process was another than before"),
    ("leaks.crashes", "times that nothing listened any more on a watched port"),
    ("leaks.oom_kills", "processes of the containers that were killed for lack of memory"),
    ("leaks.gaps", "times of more than 1.5 intervals without a sample"),
    ("leaks.stopped_early", "1 if the run was shorter than planned, or cut off"),
];

/// The longer ends first.
const PER_SERIES: [&str; 7] =
    ["_held_per_minute", "_per_minute", "_peak_growth", "_growth", "_final", "_max", "_mean"];

pub(crate) fn is_known(figure: &str) -> bool {
    let listed = FIGURES.iter().any(|(name, _)| *name == figure);
    let of_series = figure
        .strip_prefix("leaks.")
        .is_some_and(|rest| PER_SERIES.iter().any(|end| rest.ends_with(end)));
    let of_clients = figure.strip_prefix("clients.").is_some_and(|rest| {
        let rest = rest.strip_prefix("connect_").or(rest.strip_prefix("round_trip_"));
        rest.is_some_and(|word| {
            ["min_ms", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms"].contains(&word)
        })
    });
    listed || of_series || of_clients
}

pub(crate) fn measure(figure: &str, subject: &Subject<'_>) -> Measure {
    let (family, name) = figure.split_once('.').unwrap_or((figure, ""));
    match family {
        "phantoms" => of_servers(name, subject, |server| server.phantoms),
        "reverse_phantoms" => of_servers(name, subject, |server| server.reverse_phantoms),
        "unclosed" => of_servers(name, subject, |server| server.unclosed),
        "end" => at_end(name, subject),
        "handshake" => of_handshakes(name, subject),
        "shards" => {
            let found = || subject.shards.iter().map(|report| report.imbalance_percent);
            let complete = found().all(|percent| percent.is_some());
            let value = found().flatten().max_by(f64::total_cmp);
            Measure { complete, ..Measure::of(value, "%") }
        }
        "clients" => subject.clients.map_or(Measure::of(None, ""), |found| of_clients(name, found)),
        _ => of_leaks(name, subject),
    }
}

/// The highest; `None` if any is, or there is none.
fn worst(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let all: Vec<f64> = values.collect::<Option<_>>()?;
    all.into_iter().max_by(f64::total_cmp)
}

fn of_servers(
    name: &str,
    subject: &Subject<'_>,
    pick: impl Fn(&ServerReport) -> Magnitude,
) -> Measure {
    let magnitudes: Vec<Magnitude> = subject.servers.iter().map(|server| pick(server)).collect();
    let (value, unit): (fn(&Magnitude) -> Option<f64>, _) = match name {
        "max_percent" => (percent, "%"),
        "end" => (|magnitude| magnitude.at_end.map(|count| count as f64), ""),
        _ => (|magnitude| magnitude.peak.map(|count| count as f64), ""),
    };
    Measure { complete: judged_enough(&subject.servers), ..most(&magnitudes, value, unit) }
}

/// A crossed limit counts even where another magnitude could not be judged.
pub(super) fn most(
    magnitudes: &[Magnitude],
    value: impl Fn(&Magnitude) -> Option<f64>,
    unit: &'static str,
) -> Measure {
    let values: Vec<Option<f64>> = magnitudes.iter().map(value).collect();
    Measure {
        value: values.iter().flatten().copied().max_by(f64::total_cmp),
        unit,
        complete: values.iter().all(Option::is_some),
        certain: true,
    }
}

pub(super) fn percent(magnitude: &Magnitude) -> Option<f64> {
    match magnitude.peak? {
        0 => Some(0.0),
        // Of a report of 0 or less, any phantom is more than every share.
        _ => Some(magnitude.peak_percent.unwrap_or(f64::INFINITY)),
    }
}

pub(crate) fn judged_enough(servers: &[&ServerReport]) -> bool {
    servers
        .iter()
        .all(|server| (server.samples - server.judged) * 100 <= server.samples * UNJUDGED_PERCENT)
}

fn at_end(name: &str, subject: &Subject<'_>) -> Measure {
    if name == "drained_s" {
        let closed = subject.clients.and_then(|clients| clients.last_closed_unix_ns);
        let drained = subject.servers.iter().map(|server| drained_s(&server.series, closed?));
        return Measure::of(worst(drained), "s");
    }
    let last = subject.servers.iter().map(|server| {
        let last = server.last?;
        Some(if name == "kernel" { last.kernel_high } else { last.reported } as f64)
    });
    Measure::of(worst(last), "")
}

/// From `closed_unix_ns` to the first sample from which on nobody reports or holds a connection.
/// `None` if the last sample still has some.
fn drained_s(series: &[Point], closed_unix_ns: i64) -> Option<f64> {
    let busy = series.iter().rposition(|point| point.reported != 0 || point.kernel_high != 0);
    let empty = series.get(busy.map_or(0, |last| last + 1))?;
    Some(((empty.at_unix_ns - closed_unix_ns) as f64 / 1e9).max(0.0))
}

fn of_handshakes(name: &str, subject: &Subject<'_>) -> Measure {
    let slowest = |of: fn(&Latency) -> Option<f64>| worst(subject.handshake_times.iter().map(of));
    let failed: Vec<Magnitude> =
        subject.handshakes.iter().map(|report| handshake::failed(report)).collect();
    match name {
        "failed" => most(&failed, |found| found.peak.map(|count| count as f64), ""),
        "failed_percent" => most(&failed, percent, "%"),
        "p50_ms" => Measure::of(slowest(|times| times.p50_ms), "ms"),
        _ => Measure::of(slowest(|times| times.p99_ms), "ms"),
    }
}

fn of_clients(name: &str, clients: &ClientReport) -> Measure {
    let of = |latency: Option<Latency>, word: &str| {
        let found = latency.and_then(|latency| match word {
            "min_ms" => latency.min_ms,
            "mean_ms" => latency.mean_ms,
            "p50_ms" => latency.p50_ms,
            "p95_ms" => latency.p95_ms,
            "p99_ms" => latency.p99_ms,
            _ => latency.max_ms,
        });
        Measure::of(found, "ms")
    };
    if let Some(word) = name.strip_prefix("connect_") {
        return of(clients.connect, word);
    }
    if let Some(word) = name.strip_prefix("round_trip_") {
        return of(clients.round_trip, word);
    }
    let count = |count: Option<u64>| Measure::of(count.map(|count| count as f64), "");
    match name {
        "attempted" => count(clients.attempted),
        "failed" => count(clients.failed),
        "errors_percent" => Measure::of(errors_percent(clients), "%"),
        "unmatched" => count(Some(clients.matches.unmatched as u64)),
        _ => Measure::of(clients.success_percent.map(|percent| percent / 100.0), ""),
    }
}

fn errors_percent(clients: &ClientReport) -> Option<f64> {
    let attempted = clients.attempted.filter(|attempted| *attempted > 0)?;
    Some(100.0 * (clients.failed? + clients.broken) as f64 / attempted as f64)
}

/// What the memory grew by for each of the connections that were there at the most.
fn kb_per_connection(report: &LeakReport) -> Option<f64> {
    let trend = |name| report.followed.iter().find(|one| one.name == name).map(|one| &one.trend);
    let (memory, connections) = (trend("memory_mb")?, trend(ESTABLISHED)?);
    let more = connections.peak - connections.baseline;
    (more > 0.0).then(|| (memory.peak - memory.baseline) * 1_048.576 / more)
}

/// Of several services' descriptors the worst decide.
fn is_of(followed: &Followed, series: &str) -> bool {
    followed.name == series || kind_of(&followed.name) == series
}

/// The unit of a series, told by the end of its name, and that of its slope.
fn units(series: &str) -> [&'static str; 2] {
    match series.rsplit('_').next() {
        Some("mb") => ["MiB", "MiB/min"],
        Some("percent") => ["%", "%/min"],
        Some("ms") => ["ms", "ms/min"],
        _ => ["", "/min"],
    }
}

fn of_leaks(name: &str, subject: &Subject<'_>) -> Measure {
    let over = |of: fn(&LeakReport) -> usize| {
        Measure::of(worst(subject.leaks.iter().map(|report| Some(of(report) as f64))), "")
    };
    match name {
        "http_errors" => return over(|report| report.stability.http_errors),
        "restarts" => return over(|report| report.stability.restarts),
        "crashes" => return over(|report| report.stability.crashes.len()),
        "oom_kills" => return over(|report| report.stability.oom_kills),
        "gaps" => return over(|report| report.gaps.len()),
        "memory_kb_per_connection" => {
            return Measure::of(
                worst(subject.leaks.iter().map(|one| kb_per_connection(one))),
                "kB",
            );
        }
        "stopped_early" => return over(|report| report.stability.stopped_early.into()),
        _ => {}
    }
    let Some((series, end)) =
        PER_SERIES.iter().find_map(|end| Some((name.strip_suffix(end)?, *end)))
    else {
        return Measure::of(None, "");
    };
    let followed = subject.leaks.iter().flat_map(|report| &report.followed);
    let [unit, unit_per_minute] = units(series);
    let mut found = Measure::of(None, "");
    for one in followed.filter(|followed| is_of(followed, series)) {
        let trend = &one.trend;
        let (value, unit, certain) = match end {
            "_per_minute" | "_held_per_minute" => {
                let (slope, low) = match end {
                    "_per_minute" => (trend.per_minute, trend.low_per_minute),
                    _ => (one.held_per_minute, one.held_low_per_minute),
                };
                // While the connections are held, it is not they.
                let by_load = end == "_per_minute" && one.with_load;
                let certain = low.is_some_and(|low| low > 0.0) && !by_load;
                (slope, unit_per_minute, certain)
            }
            "_peak_growth" => (Some(trend.peak - trend.baseline), unit, true),
            "_growth" => (Some(trend.growth), unit, true),
            "_max" => (Some(trend.peak), unit, true),
            "_mean" => (Some(trend.mean), unit, true),
            _ => (Some(trend.last), unit, true),
        };
        if found.value.is_none() || value > found.value {
            found = Measure { value, unit, complete: true, certain };
        }
    }
    found
}
