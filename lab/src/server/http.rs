//! The server's HTTP side: `/health`, `/metrics`, `/connections`, and the WebSocket upgrade with
//! the faults that strike there.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::manager::Visit;
use super::{Server, token};
use crate::fault::Reaction;
use crate::http::{self, Body, text};
use crate::process;
use crate::truth::Leg;
use crate::units::unix_ns;

/// What becomes of the connection after HTTP is done with it.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    Close,
    /// A 101 was written.
    WebSocket(Visit),
    Reset,
    Garbage,
    /// The truth cannot be written.
    Fail(anyhow::Error),
}

/// One connection's answers. Requests come one after the other, so that the locks never wait.
pub(super) struct Answers<'a> {
    pub(super) server: &'a Server,
    /// `client` is filled in by the upgrade request.
    pub(super) leg: Mutex<Leg>,
    pub(super) next: Mutex<Next>,
}

impl Answers<'_> {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let server = self.server;
        if http::asks_for_websocket(request.headers()) {
            return self.upgrade(&request).await;
        }
        if request.method() != Method::GET {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n"));
        }
        Ok(match request.uri().path() {
            "/health" => http::json(&health(server)),
            "/metrics" => http::prometheus(metrics(server)),
            "/connections" => http::json(&connections(server)),
            "/managers" => match &server.managers {
                Some(managers) => http::json(&managers.list()),
                None => text(StatusCode::NOT_FOUND, "this server keeps none; see --managers\n"),
            },
            _ if request.headers().contains_key(SEC_WEBSOCKET_VERSION) => {
                text(StatusCode::UPGRADE_REQUIRED, "the upgrade header is missing\n")
            }
            _ => text(
                StatusCode::UPGRADE_REQUIRED,
                "this is a WebSocket server; see also /health, /metrics and /connections\n",
            ),
        })
    }

    async fn upgrade(&self, request: &Request<Incoming>) -> io::Result<Response<Body>> {
        let leg = {
            let mut leg = lock(&self.leg);
            leg.client = http::forwarded_for(request.headers());
            *leg
        };
        match self.server.faults.reaction(&leg) {
            Ok(Some(reaction)) => self.react(reaction, &leg, request).await,
            Ok(None) => self.upgrade_properly(&leg, request),
            Err(error) => self.end(Next::Fail(error)),
        }
    }

    async fn react(
        &self,
        reaction: Reaction,
        leg: &Leg,
        request: &Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let headers = request.headers();
        let delay = self.server.options.fault_delay;
        match reaction {
            Reaction::Answer(status) => {
                let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
                Ok(text(status, "the lab's fault says so\n"))
            }
            // The key of the example in RFC 6455, which no client sends.
            Reaction::WrongAccept => Ok(http::switching_protocols(b"dGhlIHNhbXBsZSBub25jZQ==")),
            Reaction::Garbage => self.end(Next::Garbage),
            Reaction::Hang => std::future::pending().await,
            Reaction::Reset => self.end(Next::Reset),
            Reaction::Close => self.end(Next::Close),
            Reaction::CloseAfterUpgrade => {
                let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
                Ok(http::switching_protocols(key))
            }
            Reaction::Delay => {
                tokio::time::sleep(delay).await;
                self.upgrade_properly(leg, request)
            }
            Reaction::Spin => {
                spin(delay);
                self.upgrade_properly(leg, request)
            }
        }
    }

    fn end(&self, next: Next) -> io::Result<Response<Body>> {
        *lock(&self.next) = next;
        Err(http::no_answer())
    }

    fn upgrade_properly(
        &self,
        leg: &Leg,
        request: &Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let (server, headers) = (self.server, request.headers());
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let mut response =
                text(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is expected\n");
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, 13.into());
            return Ok(response);
        }
        let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
            return Ok(text(StatusCode::BAD_REQUEST, "sec-websocket-key is missing\n"));
        };
        let token =
            headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
        let signed = server.options.jwt_secret.as_deref().map(|secret| {
            token::user(token.unwrap_or_default(), secret, unix_ns() / 1_000_000_000)
        });
        let visit = visit(request, leg, signed.as_ref().and_then(|user| user.as_deref().ok()));
        let managers = server.managers.as_ref();
        let refusal = if server.options.token.as_deref().is_some_and(|wanted| token != Some(wanted))
        {
            Some((StatusCode::UNAUTHORIZED, "token", "a bearer token is expected\n"))
        } else if let Some(Err(why)) = &signed {
            Some((StatusCode::UNAUTHORIZED, "token", *why))
        } else if !server.admits_now() {
            Some((StatusCode::TOO_MANY_REQUESTS, "rate-limit", "too many in this second\n"))
        } else if server.guards_tasks() {
            Some((StatusCode::SERVICE_UNAVAILABLE, "task-guard", "too many tasks\n"))
        } else if server.registry.count() >= server.options.max_connections {
            Some((StatusCode::SERVICE_UNAVAILABLE, "capacity-limit", "all connections are taken\n"))
        } else if managers.is_some_and(|managers| !managers.has_room(&visit)) {
            Some((StatusCode::TOO_MANY_REQUESTS, "manager-limit", "too many managers\n"))
        } else {
            None
        };
        if let Some((status, why, says)) = refusal {
            return match server.faults.turned_away(why, &format!("http_{}", status.as_u16()), leg) {
                Ok(()) => Ok(text(status, says)),
                Err(error) => self.end(Next::Fail(error)),
            };
        }
        *lock(&self.next) = Next::WebSocket(visit);
        Ok(http::switching_protocols(key.as_bytes()))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// "goroutines" are the tasks of this server's connections, health polls included.
fn health(server: &Server) -> serde_json::Value {
    const MIB: f64 = 1024.0 * 1024.0;
    let current = server.registry.count();
    let max = server.options.max_connections;
    let used = process::resident_bytes() as f64 / MIB;
    let limit = server.memory_limit_bytes as f64 / MIB;
    let healthy = current < max;
    let mut health = json!({
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
    });
    if let Some(managers) = &server.managers {
        health["managers"] = managers.health();
    }
    health
}

/// The user by token, else by `?user=`; the thread by `?thread=`, else the client's port.
fn visit(request: &Request<Incoming>, leg: &Leg, signed: Option<&str>) -> Visit {
    let query = request.uri().query().unwrap_or_default();
    let named = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    Visit {
        user: signed
            .map(str::to_owned)
            .or_else(|| named("user"))
            .unwrap_or_else(|| "anybody".to_owned()),
        thread: named("thread").unwrap_or_else(|| leg.remote.port().to_string()),
    }
}

pub(crate) fn percentage(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { round2(100.0 * part / whole) } else { 0.0 }
}

pub(crate) fn round2(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The process metrics bear the names of the common client libraries.
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

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// The table, for whoever joins it row by row: `.connections[].peer` is the client's address.
fn connections(server: &Server) -> serde_json::Value {
    json!({ "schema_version": 1, "connections": server.registry.entries() })
}
