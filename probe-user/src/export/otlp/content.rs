//! What is handed on: counts as metrics, failed handshakes as log records.

use super::message::{
    CUMULATIVE, Gauge, KeyValue, LogRecord, Logs, Metric, Metrics, Point, Resource, ResourceLogs,
    ResourceMetrics, Scope, ScopeLogs, ScopeMetrics, Sum, WARN, number, text,
};
use crate::{
    clock::Pair,
    export::json::{CountRow, Counts},
    tui::leg::{Leg, STAGES},
};

fn resource() -> Option<Resource> {
    let attributes = vec![
        text("service.name", "groundtruth-probe"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", &crate::cmd::top::host()),
    ];
    Some(Resource { attributes })
}

fn scope() -> Option<Scope> {
    Some(Scope { name: "groundtruth".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

pub(super) fn metrics(counts: &Counts) -> Metrics {
    let at_unix_ns = counts.at_unix_ns.cast_unsigned();
    let point = |attributes: Vec<KeyValue>, value: i64| Point {
        at_unix_ns,
        value: Some(value),
        attributes,
    };
    let of = |row: &CountRow| {
        vec![
            text("container.name", &row.container.name),
            text("container.runtime", row.container.runtime.name()),
            number("server.port", row.port),
            text("groundtruth.role", &row.role),
            number("groundtruth.netns", row.netns),
            number("groundtruth.cgroup_id", row.cgroup_id.cast_signed()),
        ]
    };
    let states = counts.counts.iter().flat_map(|row| {
        row.states.iter().map(|(state, count)| {
            let mut attributes = of(row);
            attributes.push(text("network.connection.state", semantic_state(state)));
            point(attributes, *count)
        })
    });
    let accepted =
        counts.counts.iter().filter_map(|row| Some(point(of(row), row.accepted?.cast_signed())));
    let sum = |points, is_monotonic| Some(Sum { points, temporality: CUMULATIVE, is_monotonic });
    let metric = |name: &str, description: &str, unit: &str| Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        gauge: None,
        sum: None,
    };
    let metrics = vec![
        Metric {
            sum: sum(states.collect(), false),
            ..metric("groundtruth.connections", "TCP sockets in each kernel state", "{connection}")
        },
        Metric {
            sum: sum(accepted.collect(), true),
            ..metric(
                "groundtruth.connections.accepted",
                "Connections accepted since the kernel programs were attached",
                "{connection}",
            )
        },
        Metric {
            gauge: Some(Gauge { points: vec![point(Vec::new(), counts.exact.into())] }),
            ..metric(
                "groundtruth.exact",
                "1 if no count was lost, none drifted, and no audit is overdue",
                "1",
            )
        },
    ];
    let scopes = vec![ScopeMetrics { scope: scope(), metrics }];
    Metrics { resources: vec![ResourceMetrics { resource: resource(), scopes }] }
}

/// The semantic conventions' names, where they are not the kernel's.
fn semantic_state(kernel: &str) -> &str {
    match kernel {
        "close" => "closed",
        "syn_recv" => "syn_received",
        other => other,
    }
}

pub(super) fn logs(records: Vec<LogRecord>) -> Logs {
    let scopes = vec![ScopeLogs { scope: scope(), records }];
    Logs { resources: vec![ResourceLogs { resource: resource(), scopes }] }
}

/// One failed handshake.
pub(super) fn failure(leg: &Leg, now: Pair) -> LogRecord {
    let outcome = leg.outcome.as_deref().unwrap_or("unknown");
    let (client, server) =
        if leg.service.role == "active" { (leg.local, leg.peer) } else { (leg.peer, leg.local) };
    let stage = leg.passed().checked_sub(1).and_then(|last| STAGES.get(last)).unwrap_or(&"none");
    let mut attributes = vec![
        text("event.name", "groundtruth.handshake.failed"),
        text("error.type", outcome),
        text("network.transport", "tcp"),
        text("client.address", &client.ip().to_string()),
        number("client.port", client.port()),
        text("server.address", &server.ip().to_string()),
        number("server.port", server.port()),
        text("container.name", &leg.service.container),
        text("groundtruth.role", &leg.service.role),
        text("groundtruth.last_stage", stage),
    ];
    let status = outcome.strip_prefix("http_").and_then(|status| status.parse::<u16>().ok());
    attributes.extend(status.map(|status| number("http.response.status_code", status)));
    let body = format!("handshake failed: {outcome}, last seen at {stage}");
    LogRecord {
        at_unix_ns: now.unix_of(leg.last_ns()).cast_unsigned(),
        observed_unix_ns: now.unix_ns.cast_unsigned(),
        severity: WARN,
        severity_text: "WARN".to_owned(),
        body: Some(body.as_str().into()),
        attributes,
    }
}
