//! What is handed on: counts as metrics, failed handshakes as log records.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
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
    Some(Resource { attributes, ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "groundtruth".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    pair(key, any_value::Value::IntValue(value.into()))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(super) fn metrics(counts: &Counts) -> ExportMetricsServiceRequest {
    let point = |attributes: Vec<KeyValue>, value: i64| NumberDataPoint {
        time_unix_nano: counts.at_unix_ns.cast_unsigned(),
        value: Some(number_data_point::Value::AsInt(value)),
        attributes,
        ..NumberDataPoint::default()
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
    // From a start that is not known: the programs may be older than the agent.
    let sum = |data_points, is_monotonic| {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
    };
    let metric = |name: &str, description: &str, unit: &str, data| Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let metrics = vec![
        metric(
            "groundtruth.connections",
            "TCP sockets in each kernel state",
            "{connection}",
            sum(states.collect(), false),
        ),
        metric(
            "groundtruth.connections.accepted",
            "Connections accepted since the kernel programs were attached",
            "{connection}",
            sum(accepted.collect(), true),
        ),
        metric(
            "groundtruth.exact",
            "1 if no count was lost, none drifted, and no audit is overdue",
            "1",
            Data::Gauge(Gauge { data_points: vec![point(Vec::new(), counts.exact.into())] }),
        ),
    ];
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: resource(), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// The semantic conventions' names, where they are not the kernel's.
fn semantic_state(kernel: &str) -> &str {
    match kernel {
        "close" => "closed",
        "syn_recv" => "syn_received",
        other => other,
    }
}

pub(super) fn logs(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: resource(), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }
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
        time_unix_nano: now.unix_of(leg.last_ns()).cast_unsigned(),
        observed_time_unix_nano: now.unix_ns.cast_unsigned(),
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "WARN".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
        attributes,
        ..LogRecord::default()
    }
}
