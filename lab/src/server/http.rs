//! The server's HTTP side: `/health`, `/metrics`, `/connections`, and the WebSocket upgrade.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Server;
use crate::process;

pub(super) type Body = Full<Bytes>;

/// Answers one request; `upgraded` is set when the connection is a WebSocket from here on.
pub(super) fn answer(
    server: &Server,
    request: &Request<Incoming>,
    upgraded: &OnceLock<()>,
) -> Result<Response<Body>, Infallible> {
    let response = match request.uri().path() {
        _ if asks_for_websocket(request.headers()) => upgrade(server, request, upgraded),
        _ if request.method() != Method::GET => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n")
        }
        "/health" => body("application/json", health(server).to_string()),
        "/metrics" => body("text/plain; version=0.0.4", metrics(server)),
        "/connections" => body("application/json", connections(server).to_string()),
        _ => text(
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket server; see also /health, /metrics and /connections\n",
        ),
    };
    Ok(response)
}

fn upgrade(
    server: &Server,
    request: &Request<Incoming>,
    upgraded: &OnceLock<()>,
) -> Response<Body> {
    let headers = request.headers();
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = text(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is expected\n");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, hyper::http::HeaderValue::from(13));
        return response;
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::BAD_REQUEST, "sec-websocket-key is missing\n");
    };
    if let Some(token) = &server.options.token
        && headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "))
            != Some(token.as_str())
    {
        return text(StatusCode::UNAUTHORIZED, "a bearer token is expected\n");
    }
    if server.registry.count() >= server.options.max_connections {
        return text(StatusCode::SERVICE_UNAVAILABLE, "all connections are taken\n");
    }

    let _ = upgraded.set(());
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, hyper::http::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, hyper::http::HeaderValue::from_static("websocket"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).try_into() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

/// Whether a comma-separated header has `token`, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// "goroutines" are the tasks of this server's connections, health polls included.
fn health(server: &Server) -> serde_json::Value {
    const MIB: f64 = 1024.0 * 1024.0;
    let current = server.registry.count();
    let max = server.options.max_connections;
    let used = process::resident_bytes() as f64 / MIB;
    let limit = server.memory_limit_bytes as f64 / MIB;
    let healthy = current < max;
    json!({
        "status": if healthy { "healthy" } else { "degraded" },
        "healthy": healthy,
        "checks": {
            "capacity": {
                "current": current,
                "max": max,
                "percentage": percentage(current as f64, max as f64),
            },
            "cpu": { "percentage": server.cpu_percent() },
            "memory": {
                "used_mb": round2(used),
                "limit_mb": round2(limit),
                "percentage": percentage(used, limit),
            },
            "goroutines": {
                "current": server.tasks.load(Ordering::Relaxed),
                "limit": server.max_tasks,
            },
        },
    })
}

fn percentage(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { round2(100.0 * part / whole) } else { 0.0 }
}

fn round2(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Prometheus' text format. The process metrics bear the names of the common client libraries.
fn metrics(server: &Server) -> String {
    let gauges = [
        ("process_open_fds", "Open file descriptors.", process::open_fds() as f64),
        ("process_max_fds", "Most file descriptors allowed.", process::max_fds() as f64),
        ("process_resident_memory_bytes", "Resident memory.", process::resident_bytes() as f64),
        ("lab_tasks", "Tasks of connections.", server.tasks.load(Ordering::Relaxed) as f64),
        ("lab_connections", "WebSockets the server believes in.", server.registry.count() as f64),
        ("lab_held_sockets", "Descriptors that a fault keeps.", server.registry.held() as f64),
    ];
    let counters = [
        ("process_cpu_seconds_total", "CPU time used.", process::cpu_time().as_secs_f64()),
        ("lab_accepted_total", "TCP connections accepted.", count(&server.totals.accepted)),
        ("lab_upgraded_total", "WebSockets opened.", count(&server.totals.upgraded)),
        ("lab_messages_total", "Messages received.", count(&server.totals.messages)),
    ];
    let mut text = String::new();
    for (kind, metrics) in [("gauge", &gauges[..]), ("counter", &counters[..])] {
        for (name, about, value) in metrics {
            let _ = writeln!(text, "# HELP {name} {about}\n# TYPE {name} {kind}\n{name} {value}");
        }
    }
    text.push_str("# HELP lab_fault_hits_total Connections hit by a fault.\n");
    text.push_str("# TYPE lab_fault_hits_total counter\n");
    for (fault, hits) in server.faults.hits() {
        let _ = writeln!(text, "lab_fault_hits_total{{fault=\"{fault}\"}} {hits}");
    }
    text
}

fn count(counter: &std::sync::atomic::AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// The table, for whoever joins it row by row: `.connections[].peer` is the client's address.
fn connections(server: &Server) -> serde_json::Value {
    json!({ "schema_version": 1, "connections": server.registry.entries() })
}

fn body(content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::http::HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
