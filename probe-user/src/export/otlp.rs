//! Hands metrics and failed handshakes to an OpenTelemetry receiver: OTLP over HTTP, in its JSON form,
//! which every receiver of the HTTP kind reads and which takes no code generator.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::json::{CountRow, Counts};
use crate::{
    clock::{self, Pair},
    filter::Filter,
    health::request::Target,
    identity::Identity,
    truth::source::Source,
    tui::{
        leg::{Leg, STAGES},
        live::{Live, OPEN_EVERY},
    },
};

/// Failed handshakes that wait for a receiver; more are dropped, and that is said.
const WAITING: usize = 10_000;
/// Severity numbers of OpenTelemetry.
const WARN: u32 = 13;
/// Sums that grow from a start that is not known: the programs may be older than the agent.
const CUMULATIVE: u32 = 2;

/// Where to, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
}

/// Exports as long as it is polled. A receiver that is away misses metrics, and gets the failures
/// later.
pub(crate) async fn export(receiver: Receiver, source: Arc<dyn Source>, identity: Arc<Identity>) {
    let live = Live {
        source: Arc::clone(&source),
        identity: Arc::clone(&identity),
        filter: Filter::default(),
        open_every: OPEN_EVERY,
    };
    let mut ended = source.ended();
    let mut failures = VecDeque::new();
    let mut dropped = 0_u64;
    let mut was_away = false;
    let mut ticks = tokio::time::interval(receiver.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(batch) = crate::tui::live::next(&mut ended) => {
                let now = Pair::now();
                for leg in live.legs(&batch).iter().filter(|leg| leg.is_failure()) {
                    if failures.len() == WAITING {
                        failures.pop_front();
                        dropped += 1;
                    }
                    failures.push_back(failure(leg, now));
                }
            }
            _ = ticks.tick() => {
                let result = send(&receiver.target, source.as_ref(), &identity, &mut failures).await;
                let url = &receiver.target.url;
                match &result {
                    Err(error) if !was_away => {
                        eprintln!("probe: {url}: {error}; trying again every {}", clock::short(receiver.interval));
                    }
                    Ok(()) if was_away => {
                        eprintln!("probe: {url}: takes metrics again; {dropped} failed handshakes were dropped");
                        dropped = 0;
                    }
                    _ => {}
                }
                was_away = result.is_err();
            }
        }
    }
}

async fn send(
    target: &Target,
    source: &dyn Source,
    identity: &Identity,
    failures: &mut VecDeque<Value>,
) -> Result<(), String> {
    let words = |error: anyhow::Error| format!("{error:#}");
    let slots = source.slots().map_err(words)?;
    identity.refresh(slots.iter().map(|slot| slot.key)).await;
    let exactness = source.exactness().map_err(words)?;
    let counts = Counts::new(&slots, source.backend(), exactness, identity, &Filter::default());
    post(target, "/v1/metrics", metrics(&counts)).await?;
    if !failures.is_empty() {
        let records: Vec<&Value> = failures.iter().collect();
        let logs = json!({"resourceLogs": [{
            "resource": resource(),
            "scopeLogs": [{"scope": scope(), "logRecords": records}],
        }]});
        post(target, "/v1/logs", logs).await?;
        failures.clear();
    }
    Ok(())
}

async fn post(target: &Target, path: &str, body: Value) -> Result<(), String> {
    let url = &target.url;
    let exchange = async {
        let (mut asker, _link) = target.connect().await.map_err(|error| error.to_string())?;
        let request = Request::post(format!("{}{path}", url.target.trim_end_matches('/')))
            .header(HOST, format!("{}:{}", url.host, url.port))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("groundtruth-probe/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body.to_string()))
            .map_err(|error| error.to_string())?;
        let response = asker.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, so that the receiver sees no broken connection.
        let _ = response.into_body().collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("status {status} to {path}")) }
    };
    tokio::time::timeout(target.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", clock::short(target.timeout))))
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// 64-bit numbers are strings in the JSON form.
fn number(key: &str, value: impl Into<i64>) -> Value {
    json!({"key": key, "value": {"intValue": value.into().to_string()}})
}

fn resource() -> Value {
    json!({"attributes": [
        text("service.name", "groundtruth-probe"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", &crate::cmd::top::host()),
    ]})
}

fn scope() -> Value {
    json!({"name": "groundtruth", "version": env!("CARGO_PKG_VERSION")})
}

fn metrics(counts: &Counts) -> Value {
    let at = counts.at_unix_ns.to_string();
    let point = |attributes: Vec<Value>, value: i64| json!({"attributes": attributes, "timeUnixNano": at, "asInt": value.to_string()});
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
    let states: Vec<Value> = counts
        .counts
        .iter()
        .flat_map(|row| {
            row.states.iter().map(|(state, count)| {
                let mut attributes = of(row);
                attributes.push(text("network.connection.state", semantic_state(state)));
                point(attributes, *count)
            })
        })
        .collect();
    let accepted: Vec<Value> = counts
        .counts
        .iter()
        .filter_map(|row| Some(point(of(row), row.accepted?.cast_signed())))
        .collect();
    let exact = vec![point(Vec::new(), counts.exact.into())];
    let sum = |points, is_monotonic: bool| {
        json!({
            "dataPoints": points,
            "aggregationTemporality": CUMULATIVE,
            "isMonotonic": is_monotonic,
        })
    };
    let metrics = json!([
        {
            "name": "groundtruth.connections",
            "description": "TCP sockets in each kernel state",
            "unit": "{connection}",
            "sum": sum(states, false),
        },
        {
            "name": "groundtruth.connections.accepted",
            "description": "Connections accepted since the kernel programs were attached",
            "unit": "{connection}",
            "sum": sum(accepted, true),
        },
        {
            "name": "groundtruth.exact",
            "description": "1 if no count was lost and none drifted",
            "unit": "1",
            "gauge": {"dataPoints": exact},
        },
    ]);
    json!({"resourceMetrics": [{
        "resource": resource(),
        "scopeMetrics": [{"scope": scope(), "metrics": metrics}],
    }]})
}

/// The semantic conventions' names, where they are not the kernel's.
fn semantic_state(kernel: &str) -> &str {
    match kernel {
        "close" => "closed",
        "syn_recv" => "syn_received",
        other => other,
    }
}

/// One failed handshake as a log record.
fn failure(leg: &Leg, now: Pair) -> Value {
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
    json!({
        "timeUnixNano": now.unix_of(leg.last_ns()).to_string(),
        "observedTimeUnixNano": now.unix_ns.to_string(),
        "severityNumber": WARN,
        "severityText": "WARN",
        "body": {"stringValue": format!("handshake failed: {outcome}, last seen at {stage}")},
        "attributes": attributes,
    })
}
