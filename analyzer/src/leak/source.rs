//! Where the numbers come from: health bodies, metrics pages, kept logs, the kernel's counters.

use std::collections::BTreeMap;
use std::str::FromStr;

use capture::schema::KERNEL_PAGE;

use crate::input::kept_log::KeptLog;
use crate::input::recording::Recording;
use crate::join::count_timeline;
use crate::population::{Population, url_port};
use crate::report::model::ServerReport;

/// Samples of a count that is known at every instant.
const SAMPLES: i64 = 400;

/// The ends of names under which servers give a resource, the best known first.
const KNOWN: [(&str, &[&str]); 9] = [
    (
        "goroutines",
        &[
            "go_goroutines",
            ".goroutines.current",
            ".goroutines",
            ".tasks.current",
            ".tasks",
            "lab_tasks",
            "tokio_alive_tasks",
        ],
    ),
    (
        "descriptors",
        &["process_open_fds", ".descriptors.current", ".descriptors", ".open_fds", ".fds"],
    ),
    (
        "memory_mb",
        &[
            "process_resident_memory_bytes",
            ".memory.rss_mb",
            ".memory.used_mb",
            ".rss_bytes",
            ".memory.rss_bytes",
        ],
    ),
    ("cpu_percent", &[".cpu.percentage", ".cpu.percent", ".cpu_percent"]),
    ("sockets", &["process_sockets"]),
    ("threads", &["process_threads"]),
    (
        "proxy_connections",
        &[
            "nginx_connections_active",
            "haproxy_frontend_scur",
            ".downstream_cx_active",
            "envoy_http_downstream_cx_active",
        ],
    ),
    ("pool_idle", &[".pool.idle", ".idle_connections", "pool_idle_connections"]),
    ("pool_reuse_percent", &[".pool.reuse_percent", ".reuse_percent", "pool_reuse_percent"]),
];

/// Kernel states of ended connections: what stays in them is a leak.
const STATES: [&str; 7] =
    ["established", "close_wait", "close", "fin_wait_1", "fin_wait_2", "last_ack", "closing"];

/// One number over time. Times are Unix nanoseconds of the host's clock, ascending.
#[derive(Debug)]
pub(crate) struct Series {
    /// `goroutines`, `sockets_close_wait`, …: the word in thresholds.
    pub(crate) name: String,
    /// The page and the path or metric.
    pub(crate) source: String,
    pub(crate) points: Vec<(i64, f64)>,
    /// Polled, so that a time without samples is a gap.
    pub(crate) polled: bool,
}

/// `NAME=PATH`: another number to follow, or another place for a known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    name: String,
    path: String,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| format!("expected NAME=PATH such as heap=.memory.heap, not `{text}`"))?;
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(sound) {
            return Err(format!("`{name}` is no name: expected letters a to z, digits and _"));
        }
        if path.is_empty() {
            return Err(format!("{name}=: expected a path or a metric's name after it"));
        }
        Ok(Choice { name: name.to_owned(), path: path.to_owned() })
    }
}

/// What is followed of services beside the first.
const OF_OTHERS: [&str; 2] = ["descriptors", "memory_mb"];

/// Numbers by name of one page.
pub(super) struct Page {
    pub(super) source: String,
    pub(super) numbers: BTreeMap<String, Vec<(i64, f64)>>,
}

impl Page {
    /// What the probe itself read of the processes that listen on a port.
    pub(super) fn is_of_kernel(&self) -> bool {
        self.source.starts_with(KERNEL_PAGE)
    }

    /// The port that it is about: `http://host:PORT/path`, or `kernel: name, port PORT`.
    fn port(&self) -> Option<u16> {
        match self.source.strip_prefix(KERNEL_PAGE) {
            Some(service) => service.rsplit(' ').next()?.parse().ok(),
            None => url_port(&self.source),
        }
    }
}

/// Every series that a recording and its logs have; of a resource given in several places, the one
/// that is known best.
pub(crate) fn series(
    recording: Option<&Recording>,
    population: Option<&Population>,
    servers: &[ServerReport],
    logs: &[KeptLog],
    choices: &[Choice],
) -> anyhow::Result<Vec<Series>> {
    let mut pages: Vec<Page> = logs
        .iter()
        .map(|log| Page { source: log.path.clone(), numbers: log.numbers.clone() })
        .collect();
    if let Some(recording) = recording {
        pages.extend(metrics_pages(recording)?);
        pages.extend(health_pages(recording)?);
    }
    // A server's own pages come before what the probe read of it; other services come by their ports.
    pages.sort_by_key(Page::is_of_kernel);
    let health = servers.first().and_then(|server| url_port(&server.url));
    let first = health.or_else(|| pages.iter().find_map(Page::port));
    let (pages, others): (Vec<Page>, Vec<Page>) =
        pages.into_iter().partition(|page| !page.is_of_kernel() || page.port() == first);
    let mut found = Vec::new();
    for (name, ends) in KNOWN {
        if !choices.iter().any(|choice| choice.name == name) {
            found.extend(ends.iter().find_map(|end| pick(&pages, name, end)));
        }
    }
    if !found.iter().any(|series: &Series| series.name == "cpu_percent") {
        found.extend(cpu_percent(&pages));
    }
    for other in others {
        let Some(port) = other.port() else { continue };
        let one = [other];
        for (name, ends) in KNOWN.iter().filter(|(name, _)| OF_OTHERS.contains(name)) {
            let picked = ends.iter().find_map(|end| pick(&one, name, end));
            found.extend(picked.map(|series| Series { name: format!("{name}_{port}"), ..series }));
        }
    }
    for choice in choices {
        found.extend(pick(&pages, &choice.name, &choice.path));
    }
    for server in servers {
        let points: Vec<(i64, f64)> =
            server.series.iter().map(|point| (point.at_unix_ns, point.phantoms as f64)).collect();
        if !points.is_empty() && !found.iter().any(|known: &Series| known.name == "phantoms") {
            let source = server.url.clone();
            // Where counts were lost there are answers, and nothing to hold them against.
            let polled = server.inconclusive.is_empty();
            found.push(Series { name: "phantoms".to_owned(), source, points, polled });
        }
    }
    if let (Some(recording), Some(population)) = (recording, population) {
        found.extend(sockets(recording, population)?);
    }
    Ok(found)
}

/// The first page that has a name with this end.
fn pick(pages: &[Page], name: &str, end: &str) -> Option<Series> {
    let ends = |known: &&String| **known == *end || (end.starts_with('.') && known.ends_with(end));
    pages.iter().find_map(|page| {
        let key = page.numbers.keys().find(ends)?;
        // Bytes are told by the name's end, as Prometheus wants it.
        let scale = if name == "memory_mb" && key.ends_with("_bytes") { 1_048_576.0 } else { 1.0 };
        let points = page.numbers[key].iter().map(|(at, value)| (*at, value / scale)).collect();
        let source = format!("{} {key}", page.source);
        Some(Series { name: name.to_owned(), source, points, polled: true })
    })
}

/// Share of one CPU between two samples, from the time that was used up to each.
fn cpu_percent(pages: &[Page]) -> Option<Series> {
    let used = pick(pages, "cpu_percent", "process_cpu_seconds_total")?;
    let points = used
        .points
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0 && pair[1].1 >= pair[0].1)
        .map(|pair| (pair[1].0, (pair[1].1 - pair[0].1) / ((pair[1].0 - pair[0].0) as f64 / 1e9)))
        .map(|(at, share)| (at, share * 100.0))
        .collect();
    Some(Series { points, ..used })
}

pub(super) fn metrics_pages(recording: &Recording) -> anyhow::Result<Vec<Page>> {
    let table = &recording.metrics;
    let url = table.column("url")?.str()?;
    let at = table.column("end_mono_ns")?.i64()?;
    let name = table.column("name")?.str()?;
    let value = table.column("value")?.f64()?;
    let mut pages: Vec<Page> = Vec::new();
    for row in 0..table.height() {
        let (Some(url), Some(at), Some(name), Some(value)) =
            (url.get(row), at.get(row), name.get(row), value.get(row))
        else {
            continue;
        };
        let at = recording.clock.unix_ns(at);
        let index = pages.iter().position(|page| page.source == url).unwrap_or_else(|| {
            pages.push(Page { source: url.to_owned(), numbers: BTreeMap::new() });
            pages.len() - 1
        });
        let series = pages[index].numbers.entry(name.to_owned()).or_default();
        match series.last_mut() {
            // Several label sets of one page: their sum.
            Some(last) if last.0 == at => last.1 += value,
            _ => series.push((at, value)),
        }
    }
    Ok(pages)
}

fn health_pages(recording: &Recording) -> anyhow::Result<Vec<Page>> {
    let table = &recording.health;
    let url = table.column("url")?.str()?;
    let at = table.column("end_mono_ns")?.i64()?;
    let fields = table.column("fields")?.str()?;
    let mut pages: Vec<Page> = Vec::new();
    for row in 0..table.height() {
        let (Some(url), Some(at), Some(fields)) = (url.get(row), at.get(row), fields.get(row))
        else {
            continue;
        };
        let Ok(fields) = serde_json::from_str::<BTreeMap<String, f64>>(fields) else { continue };
        let index = pages.iter().position(|page| page.source == url).unwrap_or_else(|| {
            pages.push(Page { source: url.to_owned(), numbers: BTreeMap::new() });
            pages.len() - 1
        });
        let at = recording.clock.unix_ns(at);
        for (name, value) in fields {
            pages[index].numbers.entry(name).or_default().push((at, value));
        }
    }
    Ok(pages)
}

/// The kernel's own counts by state, sampled evenly, of states that were ever seen.
fn sockets(recording: &Recording, population: &Population) -> anyhow::Result<Vec<Series>> {
    let counts = recording.counts.filter(&population.mask(&recording.counts)?)?;
    let (from, to) = (recording.meta.started_mono_ns, recording.ended_ns()?);
    let step = ((to - from) / SAMPLES).max(1);
    let mut found = Vec::new();
    for state in STATES {
        let timeline = count_timeline(&counts, &[state])?;
        if timeline.steps().all(|(_, count)| count == 0) {
            continue;
        }
        let first = timeline.steps().next().map_or(from, |(at, _)| at);
        let points = (0..=SAMPLES)
            .map(|n| from + n * step)
            .filter(|at| *at >= first)
            .map(|at| (recording.clock.unix_ns(at), timeline.extremes(at, at).1 as f64))
            .collect();
        let source = format!("kernel, {}", population.label());
        found.push(Series { name: format!("sockets_{state}"), source, points, polled: false });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(source: &str, name: &str, points: &[(i64, f64)]) -> Page {
        let numbers = BTreeMap::from([(name.to_owned(), points.to_vec())]);
        Page { source: source.to_owned(), numbers }
    }

    #[test]
    fn pages_are_about_a_port() {
        for (source, port) in [
            ("http://127.0.0.1:3005/metrics", Some(3005)),
            ("http://[::1]:3005", Some(3005)),
            ("http://[::1]/x", Some(80)),
            ("https://web/stats;csv", Some(443)),
            ("kernel: a, b, port 3002", Some(3002)),
            ("metrics.log", None),
        ] {
            assert_eq!(page(source, "x", &[]).port(), port, "{source}");
        }
    }

    #[test]
    fn cpu_time_becomes_a_share() {
        const S: i64 = 1_000_000_000;
        let used = [(0, 1.0), (2 * S, 2.0), (3 * S, 2.25), (4 * S, 0.0), (5 * S, 0.5)];
        let found = cpu_percent(&[page("p", "process_cpu_seconds_total", &used)]).unwrap();
        // Another process began from 0.
        assert_eq!(found.points, [(2 * S, 50.0), (3 * S, 25.0), (5 * S, 50.0)]);
    }
}
