//! The metrics of `/metrics`, in the Prometheus text format.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::{
    handshakes::{STAGES, Tally},
    json::Counts,
    spread::{BOUNDS_SECONDS, Spread},
};
use crate::{kernel::cost::HookCost, truth::source::Exactness};

const PREFIX: &str = "groundtruth";
/// Gauge, labels `container`, `runtime`, `port`, `role`, `state`.
const CONNECTIONS: &str = "connections";
/// Gauge, labels `container`, `runtime`, `port`, `role`, `class`.
const BY_CLASS: &str = "connections_by_class";
/// Counter, labels `container`, `runtime`, `port`, `role`.
const ESTABLISHED: &str = "connections_established";
/// Counter, labels as above, passive sockets only.
const ACCEPTED: &str = "connections_accepted";
/// Counter, labels as above and `outcome`.
const HANDSHAKES: &str = "handshakes";
/// Histograms, labels as above; the stages' also `stage`.
const HANDSHAKE_SECONDS: &str = "handshake_seconds";
const STAGE_SECONDS: &str = "handshake_stage_seconds";
/// Counters, label `hook`; they grow only while the kernel keeps its statistics.
const HOOK_RUNS: &str = "hook_runs";
const HOOK_RUN_SECONDS: &str = "hook_run_seconds";
/// Gauges, 1 or 0.
const EXACT: &str = "exact";
const DETAIL_COMPLETE: &str = "detail_complete";
const BUILD: &str = "build";
/// Of [`Source::vitals`], those that may fall; the others are counters.
///
/// [`Source::vitals`]: crate::truth::source::Source::vitals
const VITAL_GAUGES: [&str; 3] = ["drift", "audited_sockets", "count_slots_in_use"];

/// Characters of a container's name in a label: whoever starts containers chooses their names.
const LONGEST_NAME: usize = 128;

pub(crate) type Labels = Vec<(&'static str, String)>;

/// Container, runtime, port, role.
pub(crate) type Service = (String, String, u16, &'static str);
pub(crate) type Tallies = BTreeMap<Service, Tally>;

/// A histogram's name, its labels, and what is in it.
pub(crate) type Histogram = (String, Labels, Spread);

/// Histograms that were filled elsewhere.
#[derive(Debug, Default)]
struct Histograms(Vec<(Labels, Spread)>);

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, spread) in &self.0 {
            let bounds = BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(spread.buckets).collect();
            encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(
                spread.sum_seconds(),
                spread.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Sums over cgroups and namespaces: a label's values are services of this host, not sockets.
pub(crate) fn text(
    counts: &Counts,
    established_total: &BTreeMap<Service, u64>,
    exactness: &Exactness,
    vitals: &[(String, i64)],
    costs: &[HookCost],
    handshakes: &Tallies,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    let connections = Family::<Labels, Gauge>::default();
    let by_class = Family::<Labels, Gauge>::default();
    let established = Family::<Labels, Counter>::default();
    let accepted = Family::<Labels, Counter>::default();
    for row in &counts.counts {
        let labels = labels(&row.container.name, row.container.runtime.name(), row.port, &row.role);
        for (state, count) in &row.states {
            let mut labels = labels.clone();
            labels.push(("state", state.to_string()));
            connections.get_or_create(&labels).inc_by(*count);
        }
        for (class, count) in &row.classes {
            let mut labels = labels.clone();
            labels.push(("class", class.to_string()));
            by_class.get_or_create(&labels).inc_by(*count);
        }
        if let Some(total) = row.accepted {
            accepted.get_or_create(&labels).inc_by(total);
        }
    }
    for ((container, runtime, port, role), total) in established_total {
        established.get_or_create(&labels(container, runtime, *port, role)).inc_by(*total);
    }
    registry.register(CONNECTIONS, "TCP sockets in each kernel state", connections);
    registry.register(
        BY_CLASS,
        "Established TCP connections by what their first bytes said",
        by_class,
    );
    registry.register(
        ESTABLISHED,
        "Connections established since the kernel programs were attached",
        established,
    );
    registry.register(
        ACCEPTED,
        "Connections accepted since the kernel programs were attached",
        accepted,
    );
    register_handshakes(&mut registry, handshakes);
    for (name, help, value) in [
        (EXACT, "1 if no count was lost, none drifted, and no audit is overdue", exactness.exact),
        (DETAIL_COMPLETE, "1 if no event of a connection was lost", exactness.detail_complete),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::from(value));
        registry.register(name, help, gauge);
    }
    for (name, value) in vitals {
        let help = format!("How the agent itself fares: {}", name.replace('_', " "));
        if VITAL_GAUGES.contains(&name.as_str()) {
            let gauge: Gauge = Gauge::default();
            gauge.set(*value);
            registry.register(name, help, gauge);
        } else {
            let counter: Counter = Counter::default();
            counter.inc_by(value.cast_unsigned());
            registry.register(name, help, counter);
        }
    }
    let hook_runs = Family::<Labels, Counter>::default();
    let hook_run_seconds = Family::<Labels, Counter<f64, AtomicU64>>::default();
    for cost in costs {
        let labels = vec![("hook", cost.hook.clone())];
        hook_runs.get_or_create(&labels).inc_by(cost.runs);
        let seconds = Duration::from_nanos(cost.run_time_ns).as_secs_f64();
        hook_run_seconds.get_or_create(&labels).inc_by(seconds);
    }
    registry.register(HOOK_RUNS, "Runs of the kernel programs, while measured", hook_runs);
    registry.register(
        HOOK_RUN_SECONDS,
        "Time that those runs of the kernel programs took",
        hook_run_seconds,
    );
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
    registry.register(BUILD, "The agent's version", build);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn register_handshakes(registry: &mut Registry, handshakes: &Tallies) {
    let outcomes = Family::<Labels, Counter>::default();
    for ((container, runtime, port, role), tally) in handshakes {
        for (outcome, count) in &tally.outcomes {
            let mut labels = labels(container, runtime, *port, role);
            labels.push(("outcome", outcome.to_string()));
            outcomes.get_or_create(&labels).inc_by(*count);
        }
    }
    let (mut whole, mut stages) = (Histograms::default(), Histograms::default());
    for (name, labels, spread) in spreads(handshakes) {
        let of = if name == HANDSHAKE_SECONDS { &mut whole } else { &mut stages };
        of.0.push((labels, spread.clone()));
    }
    registry.register(HANDSHAKES, "WebSocket handshakes by how they ended", outcomes);
    registry.register(HANDSHAKE_SECONDS, "From the SYN to the answer 101", whole);
    registry.register(
        STAGE_SECONDS,
        "Stages of handshakes that were upgraded: established since the SYN, accepted and \
         request_received since established, upgraded since the request",
        stages,
    );
}

/// The histograms of [`text`], with all that is known of them.
pub(crate) fn histograms(handshakes: &Tallies) -> Vec<Histogram> {
    spreads(handshakes)
        .map(|(name, labels, spread)| (format!("{PREFIX}_{name}"), labels, spread.clone()))
        .collect()
}

/// A stage that cannot be timed here has no histogram, rather than one of nothing.
fn spreads(handshakes: &Tallies) -> impl Iterator<Item = (&'static str, Labels, &Spread)> {
    let all = handshakes.iter().flat_map(|((container, runtime, port, role), tally)| {
        let labels = labels(container, runtime, *port, role);
        let with_stage = {
            let labels = labels.clone();
            move |stage: &str| {
                let mut labels = labels.clone();
                labels.push(("stage", stage.to_owned()));
                labels
            }
        };
        let stages = STAGES.iter().zip(&tally.stages);
        let stages = stages.map(move |(stage, spread)| (STAGE_SECONDS, with_stage(stage), spread));
        std::iter::once((HANDSHAKE_SECONDS, labels, &tally.whole)).chain(stages)
    });
    all.filter(|(_, _, spread)| spread.count() > 0)
}

fn labels(container: &str, runtime: &str, port: u16, role: &str) -> Labels {
    vec![
        ("container", container.chars().take(LONGEST_NAME).collect()),
        ("runtime", runtime.to_owned()),
        ("port", port.to_string()),
        ("role", role.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::json::CountRow,
        identity::cgroup::{Container, Runtime},
        truth::source::Backend,
    };

    #[test]
    fn populations_of_one_service_are_summed_and_names_are_escaped() {
        let row = |cgroup_id, established| CountRow {
            cgroup_id,
            container: Container { id: None, name: "we\"b\n\\".into(), runtime: Runtime::Docker },
            netns: 1,
            port: 3005,
            role: "passive".into(),
            established,
            accepted: Some(7),
            established_total: None,
            closed_total: None,
            states: BTreeMap::from([("established".into(), established)]),
            classes: BTreeMap::from([("upgraded".into(), established)]),
        };
        let counts = Counts {
            schema_version: "1.0".into(),
            at_unix_ns: 0,
            backend: Backend::Ebpf,
            exact: true,
            degraded: vec![],
            inexact: vec![],
            counts: vec![row(1, 20), row(2, 3)],
        };
        let exactness =
            Exactness { exact: true, detail_complete: false, degraded: vec![], inexact: vec![] };
        let vitals = [("drift".to_owned(), -1), ("skipped_runs".to_owned(), 3)];
        let costs =
            [HookCost { hook: "cgroup_skb/egress".into(), runs: 1000, run_time_ns: 250_000 }];
        let mut tally = Tally::default();
        tally.outcomes.extend([("upgraded".into(), 3), ("http_503".into(), 2)]);
        tally.whole.buckets[0] = 2;
        tally.whole.buckets[BOUNDS_SECONDS.len()] = 1;
        tally.whole.sum_ns = 12_000_150_000;
        tally.stages[3] = tally.whole.clone();
        let service = ("we\"b\n\\".to_owned(), "docker".to_owned(), 3005, "passive");
        let handshakes = BTreeMap::from([(service, tally)]);
        let text =
            text(&counts, &BTreeMap::new(), &exactness, &vitals, &costs, &handshakes).unwrap();
        let labels = r#"container="we\"b\n\\",runtime="docker",port="3005",role="passive""#;
        for line in [
            format!("groundtruth_connections{{{labels},state=\"established\"}} 23"),
            format!("groundtruth_connections_by_class{{{labels},class=\"upgraded\"}} 23"),
            format!("groundtruth_connections_accepted_total{{{labels}}} 14"),
            format!("groundtruth_handshakes_total{{{labels},outcome=\"http_503\"}} 2"),
            format!("groundtruth_handshake_seconds_bucket{{le=\"0.0001\",{labels}}} 2"),
            format!("groundtruth_handshake_seconds_bucket{{le=\"10.0\",{labels}}} 2"),
            format!("groundtruth_handshake_seconds_bucket{{le=\"+Inf\",{labels}}} 3"),
            format!("groundtruth_handshake_seconds_count{{{labels}}} 3"),
            format!("groundtruth_handshake_seconds_sum{{{labels}}} 12.00015"),
            format!("groundtruth_handshake_stage_seconds_count{{{labels},stage=\"upgraded\"}} 3"),
            "groundtruth_exact 1".into(),
            "groundtruth_detail_complete 0".into(),
            "groundtruth_drift -1".into(),
            "groundtruth_skipped_runs_total 3".into(),
            "groundtruth_hook_runs_total{hook=\"cgroup_skb/egress\"} 1000".into(),
            "groundtruth_hook_run_seconds_total{hook=\"cgroup_skb/egress\"} 0.00025".into(),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn a_label_is_no_longer_than_a_name_may_be() {
        let name = "ö".repeat(LONGEST_NAME + 1);
        let cut = "ö".repeat(LONGEST_NAME);
        let labels = labels(&name, "docker", 3005, "passive");
        assert_eq!(labels[0], ("container", cut));
    }
}
