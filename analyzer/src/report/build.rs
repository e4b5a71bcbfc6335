//! From captures to the report model.

use std::collections::{BTreeMap, HashMap};

use crate::both::both;
use crate::cli::{Filter, Judging};
use crate::client;
use crate::input::client::ClientResults;
use crate::input::connections::{Flag, Number, Time, Word};
use crate::input::kept_log::KeptLog;
use crate::input::recording::Recording;
use crate::join::{Basis, Comparison, Joined, Judged, health_urls};
use crate::leak;
use crate::leak::report::{LeakReport, Plan};
use crate::population::Population;
use crate::report::handshake::{self, HandshakeReport};
use crate::report::model::{
    CaptureReport, ConnectionSummary, Finding, Kind, LossReport, Magnitude, Point, Quality, Report,
    SCHEMA_VERSION, ServerReport, ServiceSummary, Tally, Threshold, Truncation, VerdictState,
};
use crate::report::shard::ShardReport;
use crate::report::{shard, verdict};
use crate::rule::episode::percent;
use crate::rule::{Case, findings};
use crate::threshold::judge;
use crate::threshold::limit::Limit;
use crate::threshold::measure::{Subject, judged_enough};
use crate::threshold::rule::Rule;

/// What a report is asked for beside the captures.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) max_failed: Option<Limit>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) clients: Option<ClientResults>,
    pub(crate) plan: Plan,
    /// Kept beside the first capture.
    pub(crate) logs: Vec<KeptLog>,
}

pub(crate) fn report(
    recordings: &[Recording],
    judging: &Judging,
    mut request: Request,
) -> anyhow::Result<Report> {
    let mut handshakes = Vec::new();
    let mut judged = Vec::new();
    for (index, recording) in recordings.iter().enumerate() {
        let logs = if index == 0 { request.logs.as_slice() } else { &[] };
        let chosen = Population::of_filter(recording, &judging.filter)?;
        let (found, held) = both(
            || handshake::of(recording, &chosen),
            || held(recording, judging, &chosen, logs, &request.plan),
        );
        handshakes.push(found);
        judged.push((chosen, held?));
    }
    let populations: Vec<&Population> = judged.iter().map(|(population, _)| population).collect();
    let clients = request
        .clients
        .take()
        .map(|results| client::report::of(results, recordings, &populations, &handshakes));
    let captures: Vec<CaptureReport> = recordings
        .iter()
        .zip(handshakes)
        .zip(judged)
        .map(|((recording, handshakes), (_, held))| capture(recording, handshakes, held))
        .collect::<Result<_, _>>()?;
    let shards = if request.rules.iter().any(|rule| rule.figure.starts_with("shards.")) {
        recordings
            .iter()
            .map(|recording| shards_of(recording, judging))
            .collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    let subject = Subject {
        servers: captures.iter().flat_map(|capture| &capture.servers).collect(),
        handshakes: captures.iter().filter_map(|capture| capture.handshakes.as_ref()).collect(),
        handshake_times: captures.iter().filter_map(|capture| capture.handshake_time).collect(),
        shards: shards.iter().collect(),
        leaks: captures.iter().filter_map(|capture| capture.leaks.as_ref()).collect(),
        clients: clients.as_ref(),
    };
    let mut thresholds = limits(&captures, judging, &request);
    thresholds.extend(judge(&request.rules, &subject));
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        analyzer_version: env!("CARGO_PKG_VERSION"),
        command_line: std::env::args().collect(),
        verdict: verdict::of(&captures, clients.as_ref(), &thresholds),
        thresholds,
        captures,
        clients,
    })
}

/// Of the shards that upstream legs went to, whichever port the rest of the report is about.
fn shards_of(recording: &Recording, judging: &Judging) -> anyhow::Result<ShardReport> {
    let filter = Filter { port: Vec::new(), ..judging.filter.clone() };
    shard::of(recording, &Population::of_filter(recording, &filter)?)
}

/// The thresholds that have flags of their own. Without any threshold, there must be no phantoms.
fn limits(captures: &[CaptureReport], judging: &Judging, request: &Request) -> Vec<Threshold> {
    let servers: Vec<&ServerReport> = captures.iter().flat_map(|c| &c.servers).collect();
    let conclusive = judged_enough(&servers);
    let of = |pick: fn(&ServerReport) -> Magnitude| -> Vec<Magnitude> {
        servers.iter().map(|server| pick(server)).collect()
    };
    let phantoms = judging.max_phantoms.or(request.rules.is_empty().then_some(Limit::Count(0)));
    let reverse = judging.max_reverse_phantoms.or(phantoms);
    let unclosed = judging.max_unclosed.or(phantoms);
    let mut thresholds = Vec::new();
    let mut add = |limit: Option<Limit>, name, magnitudes: Vec<Magnitude>, conclusive| {
        thresholds.extend(limit.map(|limit| limit.judge(name, &magnitudes, conclusive)));
    };
    add(phantoms, "phantoms", of(|s| s.phantoms), conclusive);
    add(reverse, "reverse phantoms", of(|s| s.reverse_phantoms), conclusive);
    add(unclosed, "sockets never closed", of(|s| s.unclosed), conclusive);
    let failed = captures
        .iter()
        .map(|c| c.handshakes.as_ref().map_or(Magnitude::default(), handshake::failed))
        .collect();
    add(request.max_failed, "failed handshakes", failed, true);
    thresholds
}

/// What is held against the kernel's word, and what grew.
fn held(
    recording: &Recording,
    judging: &Judging,
    population: &Population,
    logs: &[KeptLog],
    plan: &Plan,
) -> anyhow::Result<(Vec<ServerReport>, Option<LeakReport>)> {
    let servers = servers(recording, judging)?;
    let followed = servers.first().map_or(population, |server| &server.population);
    let leaks = leak::report::of(Some((recording, followed)), &servers, logs, plan)?;
    Ok((servers, leaks))
}

fn capture(
    recording: &Recording,
    handshakes: HandshakeReport,
    (servers, leaks): (Vec<ServerReport>, Option<LeakReport>),
) -> anyhow::Result<CaptureReport> {
    let ended_ns = recording.ended_ns()?;
    let meta = &recording.meta;
    let unix = |mono_ns| recording.clock.unix_ns(mono_ns);
    Ok(CaptureReport {
        name: recording.name.clone(),
        host: meta.host.clone(),
        kernel: meta.kernel.clone(),
        probe_version: meta.probe_version.clone(),
        command_line: meta.command_line.clone(),
        started_unix_ns: unix(meta.started_mono_ns),
        ended_unix_ns: unix(ended_ns),
        servers,
        handshake_time: handshakes.connect.latency(),
        handshakes: (handshakes.attempts > 0).then_some(handshakes),
        // Once or twice asked tells no course.
        leaks: leaks
            .filter(|found| found.followed.iter().any(|one| one.trend.per_minute.is_some())),
        connections: connection_summary(recording),
        quality: Quality {
            backend: meta.backend.clone(),
            hooks: meta.hooks.clone(),
            degraded: meta.degraded.clone(),
            cut_off: recording.is_cut_off(),
            truncated_tables: recording
                .truncated
                .iter()
                .map(|(table, at_byte)| Truncation { table, at_byte: *at_byte })
                .collect(),
            worst_drift: recording.worst_drift,
            clock_steps: recording.clock.steps(),
            losses: recording
                .loss
                .iter()
                .map(|loss| LossReport {
                    from_unix_ns: unix(loss.from_ns),
                    to_unix_ns: unix(loss.to_ns),
                    reason: loss.reason.clone(),
                    count: loss.count,
                })
                .collect(),
        },
    })
}

/// Every polled server beside the kernel's counts.
pub(crate) fn servers(
    recording: &Recording,
    judging: &Judging,
) -> anyhow::Result<Vec<ServerReport>> {
    let ended_ns = recording.ended_ns()?;
    let urls = health_urls(recording)?;
    urls.iter().map(|url| server(recording, judging, url, ended_ns)).collect()
}

fn server(
    recording: &Recording,
    judging: &Judging,
    url: &str,
    ended_ns: i64,
) -> anyhow::Result<ServerReport> {
    let behind = shard::behind(recording, url)?;
    let population = Population::of_server(recording, &judging.filter, url, &behind)?;
    let settle_ns = i64::try_from(judging.settle.as_nanos()).unwrap_or(i64::MAX / 4);
    let joined = Joined::new(recording, population, url, settle_ns)?;
    let case = Case { recording, joined: &joined, ended_ns };
    let findings = findings(&case)?;
    let series: Vec<Point> = joined
        .judged()
        .map(|(sample, comparison)| Point {
            at_unix_ns: recording.clock.unix_ns(sample.end_ns),
            reported: comparison.reported,
            kernel_low: comparison.kernel_low,
            kernel_high: comparison.kernel_high,
            phantoms: comparison.phantoms,
            reverse_phantoms: comparison.reverse,
        })
        .collect();
    let (mut unavailable, mut inconclusive) = (BTreeMap::new(), BTreeMap::new());
    for sample in &joined.samples {
        match &sample.judged {
            Judged::Yes(_) => {}
            Judged::Unavailable(why) => *unavailable.entry(why.clone()).or_insert(0) += 1,
            Judged::Inconclusive(why) => *inconclusive.entry(why.clone()).or_insert(0) += 1,
        }
    }
    let tally = |counts: BTreeMap<String, usize>| {
        counts.into_iter().map(|(why, count)| Tally { why, count }).collect()
    };
    Ok(ServerReport {
        url: url.to_owned(),
        population_label: joined.population.label(),
        basis: joined.basis,
        agreement: joined.agreement,
        settle_ms: settle_ns / 1_000_000,
        left_out_health_polls: joined.lives.left_out_pollers,
        left_out_http: joined.lives.left_out_http,
        samples: joined.samples.len(),
        judged: series.len(),
        unavailable: tally(unavailable),
        inconclusive: tally(inconclusive),
        reported_peak: series.iter().map(|point| point.reported).max(),
        last: series.last().copied(),
        phantoms: phantoms(&joined, &findings),
        reverse_phantoms: magnitude(&joined, |sample| sample.reverse),
        unclosed: unclosed(&joined, &findings),
        notes: notes(recording, &joined, &judging.filter)?,
        findings,
        series,
        population: joined.population,
    })
}

/// The largest sustained value and its share of the report at that time.
fn magnitude(joined: &Joined<'_>, of: impl Fn(&Comparison) -> i64) -> Magnitude {
    let values = joined.sustained(of);
    let mut magnitude = Magnitude::default();
    for (value, sample) in values.iter().zip(&joined.samples) {
        let (Some(value), Some(comparison)) = (value, sample.comparison()) else { continue };
        if magnitude.peak.is_none_or(|peak| *value > peak) {
            magnitude.peak = Some(*value);
            magnitude.peak_percent = percent(*value, comparison.reported);
        }
        magnitude.at_end = Some(*value);
    }
    magnitude
}

/// Reported and not there, or not answering: what exceeds the kernel's count, and at the end also
/// the half-open ones among those that both count.
fn phantoms(joined: &Joined<'_>, findings: &[Finding]) -> Magnitude {
    let mut best = magnitude(joined, |sample| sample.phantoms);
    let half_open = findings.iter().find(|finding| finding.kind == Kind::HalfOpen);
    if let (Some(half_open), Some((_, last)), Some(at_end)) =
        (half_open, joined.judged().next_back(), best.at_end)
    {
        // Only as many as the server still reports.
        let there = (last.kernel_high - half_open.at_end).max(0);
        let with_half_open = at_end + (last.reported.min(last.kernel_high) - there).max(0);
        best.at_end = Some(with_half_open);
        if best.peak.is_some_and(|peak| with_half_open > peak) {
            best.peak = Some(with_half_open);
            best.peak_percent = percent(with_half_open, last.reported);
        }
    }
    best
}

fn unclosed(joined: &Joined<'_>, findings: &[Finding]) -> Magnitude {
    if joined.lives.is_empty() && joined.count_rows == 0 {
        return Magnitude::default();
    }
    let found = findings.iter().find(|finding| finding.kind == Kind::DescriptorLeak);
    let count = found.map_or(0, |finding| finding.count);
    let reported = joined.judged().map(|(_, comparison)| comparison.reported).max().unwrap_or(0);
    Magnitude {
        peak: Some(count),
        peak_percent: percent(count, reported.max(count)),
        at_end: Some(found.map_or(0, |finding| finding.at_end)),
    }
}

/// What a reader of the figures should know.
fn notes(
    recording: &Recording,
    joined: &Joined<'_>,
    filter: &Filter,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    if joined.lives.rows == 0 && joined.count_rows == 0 {
        let mut ports = services(recording)
            .into_iter()
            .filter(|service| service.role == "passive")
            .map(|service| format!("{} ({})", service.port, service.connections))
            .collect::<Vec<_>>();
        ports.dedup();
        ports.truncate(8);
        let seen = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        notes.push(format!(
            "no {} were recorded; ports with accepted connections: {seen}; choose one with --port",
            joined.population.label()
        ));
    }
    let used = match joined.basis {
        Basis::Poll => Some("the counts that the probe saw during each poll"),
        Basis::Counts => Some("the counters, read once a second,"),
        Basis::Connections => None,
    };
    if let Some(used) = used.filter(|_| joined.lives.rows + joined.count_rows > 0) {
        let why = if recording.is_cut_off() {
            "the recording was cut off, and connections that were open then have no times"
                .to_owned()
        } else {
            format!(
                "the connections' own times agree with the kernel's counters in only {} of {} seconds",
                joined.agreement.equal, joined.agreement.compared
            )
        };
        notes.push(format!("{why}, so {used} were used"));
    }
    if joined.population.containers.is_empty() && filter.container.is_empty() {
        let mut names = joined.population.container_names(recording);
        if names.len() > 1 {
            let containers = names.len();
            names.truncate(6);
            notes.push(format!(
                "connections of {} containers are counted together ({}): choose one with --container \
                 if the server is only one of them",
                containers,
                names.join(", ")
            ));
        }
    }
    Ok(notes)
}

pub(crate) fn connection_summary(recording: &Recording) -> ConnectionSummary {
    ConnectionSummary { total: recording.connections.len(), by_service: services(recording) }
}

/// Connections per container, port and role, the most first.
fn services(recording: &Recording) -> Vec<ServiceSummary> {
    let table = &recording.connections;
    let mut counts: HashMap<(u64, u32, Option<usize>), [usize; 3]> = HashMap::new();
    for row in 0..table.len() {
        let cgroup = table.number(Number::Cgroup, row).unwrap_or(0);
        let port = table.small(Number::Port, row).unwrap_or(0);
        let key = (cgroup, port, table.word_place(Word::Role, row));
        let made = table.time(Time::Established, row).is_some() || table.flag(Flag::Seeded, row);
        let [all, established, open] = counts.entry(key).or_default();
        *all += 1;
        *established += usize::from(made);
        *open += usize::from(table.time(Time::Closed, row).is_none());
    }
    let roles = table.words(Word::Role);
    let mut services: Vec<_> = counts
        .into_iter()
        .map(|((cgroup, port, role), counts)| {
            (cgroup, port, role.map_or("unknown", |place| &roles[place]), counts)
        })
        .collect();
    services.sort_by_key(|(cgroup, port, role, [all, ..])| {
        (std::cmp::Reverse(*all), *cgroup, *port, *role)
    });
    services
        .into_iter()
        .map(|(cgroup, port, role, [connections, established, open_at_end])| ServiceSummary {
            container: recording.container_name(cgroup),
            port,
            role: role.to_owned(),
            connections,
            established,
            open_at_end,
        })
        .collect()
}

/// Whether any threshold decides, in the order of exit codes: crossed before inconclusive.
pub(crate) fn state(thresholds: &[Threshold]) -> VerdictState {
    let any = |state| thresholds.iter().any(|threshold| threshold.state == state);
    if any(VerdictState::Crossed) {
        VerdictState::Crossed
    } else if any(VerdictState::Inconclusive) {
        VerdictState::Inconclusive
    } else if any(VerdictState::Warning) {
        VerdictState::Warning
    } else {
        VerdictState::Held
    }
}
