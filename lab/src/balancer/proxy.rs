//! One client's requests at the balancer: a slot, a shard, the shard's answer.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{FORWARDED, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Policy;
use super::health::{health, metrics};
use super::table::{Table, Total};
use super::worker::Worker;
use crate::fault::Detour;
use crate::http::{self, Body, text};
use crate::net;
use crate::truth::Leg;

/// A slot of a shard; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    table: Arc<Table>,
    shard: usize,
}

impl Slot {
    /// Never gives it back.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.give_back(self.shard);
    }
}

/// What becomes of the client's connection after HTTP is done with it.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    Close,
    /// Both legs are upgraded.
    Relay { upstream: TcpStream, read: Bytes, slot: Slot },
    /// The truth cannot be written.
    Fail(anyhow::Error),
}

/// Why a request got no answer of a shard.
struct Refusal {
    status: StatusCode,
    says: &'static str,
    /// Goes into the truth, unless a fault there explains it already.
    why: Option<&'static str>,
}

const fn refusal(status: StatusCode, says: &'static str, why: Option<&'static str>) -> Refusal {
    Refusal { status, says, why }
}

/// Larger answers than this are cut: shards refuse in a line.
const MAX_BODY: usize = 64 * 1024;

/// One client's connection. Requests come one after the other, so that the lock never waits.
pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Worker,
    pub(super) leg: Leg,
    pub(super) next: Mutex<Next>,
}

impl Exchange<'_> {
    pub(super) fn into_next(self) -> Next {
        self.next.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_next(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        if !http::asks_for_websocket(request.headers()) {
            return Ok(match request.uri().path() {
                "/health" => http::json(&health(self.worker)),
                "/metrics" => http::prometheus(metrics(self.worker)),
                _ => text(StatusCode::NOT_FOUND, "see /health and /metrics\n"),
            });
        }
        let answered = match self.worker.faults.detour(&self.leg) {
            Ok(detour) => self.forward(request, detour).await,
            Err(error) => return self.fail(error),
        };
        let response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                let outcome = format!("http_{}", refusal.status.as_u16());
                if let Some(why) = refusal.why
                    && let Err(error) = self.worker.faults.turned_away(why, &outcome, &self.leg)
                {
                    return self.fail(error);
                }
                text(refusal.status, refusal.says)
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.worker.table.total(Total::Refused).fetch_add(1, Ordering::Relaxed);
        }
        Ok(response)
    }

    fn fail(&self, error: anyhow::Error) -> io::Result<Response<Body>> {
        self.set_next(Next::Fail(error));
        Err(http::no_answer())
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        detour: Option<Detour>,
    ) -> Result<Response<Body>, Refusal> {
        if detour == Some(Detour::Refuse) {
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "the balancer is busy\n", None));
        }
        let slot = self.take_slot().ok_or(refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "no shard has a free slot\n",
            Some("no-free-slot"),
        ))?;
        if detour == Some(Detour::LoseSlot) {
            let says = "no shard has a free slot\n";
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, says, None));
        }
        let shard = self.connect(slot.shard, detour).await?;
        let response = self.ask(shard, request, detour).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, detour, slot).await;
        }
        drop(slot);
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        Ok(response)
    }

    fn take_slot(&self) -> Option<Slot> {
        let Worker { options, table, shards, .. } = self.worker;
        let turn = table.total(Total::Turn).fetch_add(1, Ordering::Relaxed);
        let count = shards.len();
        let first = usize::try_from(turn % count as u64).unwrap_or(0);
        let mut order: Vec<_> = (0..count).map(|i| (first + i) % count).collect();
        if options.policy == Policy::LeastConnections {
            order.sort_by_key(|&shard| table.slots_in_use(shard));
        }
        let shard = order.into_iter().find(|&shard| table.take_slot(shard, options.slots))?;
        Some(Slot { table: Arc::clone(table), shard })
    }

    async fn connect(&self, shard: usize, detour: Option<Detour>) -> Result<TcpStream, Refusal> {
        let worker = self.worker;
        let dead = detour == Some(Detour::DeadUpstream);
        let elsewhere = match detour {
            Some(Detour::DeadUpstream) => Some(worker.refusing),
            Some(Detour::UnreachableUpstream) => Some(worker.silent),
            _ => None,
        };
        let to = elsewhere.unwrap_or(worker.shards[shard]);
        let connecting = connect_from(to, worker.options.upstream_ports);
        match timeout(worker.options.upstream_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(cannot_connect(&error, dead)),
            Err(_) => Err(refusal(
                StatusCode::GATEWAY_TIMEOUT,
                "the shard cannot be reached in time\n",
                elsewhere.is_none().then_some("upstream-connect-timeout"),
            )),
        }
    }

    /// Sends the request on, and waits for the head of the answer.
    async fn ask(
        &self,
        shard: TcpStream,
        request: Request<Incoming>,
        detour: Option<Detour>,
    ) -> Result<Response<Incoming>, Refusal> {
        const BROKEN: Refusal =
            refusal(StatusCode::BAD_GATEWAY, "the shard closed without an answer\n", None);

        let _ = shard.set_nodelay(true);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(shard)).await.map_err(|_| BROKEN)?;
        // Ends when the sender is dropped, or the upgraded stream is taken out.
        tokio::spawn(connection.with_upgrades());
        let (mut head, _) = request.into_parts();
        if let Some(Detour::DropHeader(name)) = detour {
            head.headers.remove(name);
        }
        if let Some(forwarded) = http::forwarded(self.leg.remote) {
            head.headers.insert(FORWARDED, forwarded);
        }
        let request = Request::from_parts(head, Empty::<Bytes>::new());
        match timeout(self.worker.options.upstream_timeout, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(BROKEN),
            Err(_) => Err(refusal(
                StatusCode::GATEWAY_TIMEOUT,
                "the shard does not answer in time\n",
                Some("upstream-timeout"),
            )),
        }
    }

    /// The shard has upgraded: passes its 101 on, and keeps its stream for the relay.
    async fn switch(
        &self,
        mut response: Response<Incoming>,
        detour: Option<Detour>,
        slot: Slot,
    ) -> Result<Response<Body>, Refusal> {
        const LOST: Refusal = refusal(StatusCode::BAD_GATEWAY, "the shard is gone\n", None);

        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|_| LOST)?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| LOST)?;
        if let Some(Detour::RefuseAfterUpgrade(status)) = detour {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            return Err(refusal(status, "the origin is not allowed\n", None));
        }
        let mut passed_on = Response::new(Body::default());
        *passed_on.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let mut keep = |name: HeaderName| {
            if let Some(value) = response.headers().get(&name) {
                passed_on.headers_mut().insert(name, value.clone());
            }
        };
        keep(hyper::header::CONNECTION);
        keep(hyper::header::UPGRADE);
        keep(SEC_WEBSOCKET_ACCEPT);
        keep(hyper::header::SEC_WEBSOCKET_PROTOCOL);
        if detour == Some(Detour::RewriteAccept) {
            // The answer to the key of the example in RFC 6455, which no client sends.
            let other = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            passed_on.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, other);
        }
        self.set_next(Next::Relay { upstream: parts.io.into_inner(), read: parts.read_buf, slot });
        Ok(passed_on)
    }
}

async fn connect_from(to: SocketAddr, ports: Option<(u16, u16)>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    if let Some((first, last)) = ports {
        net::local_port_range(&socket, first, last)?;
    }
    socket.connect(to).await
}

fn cannot_connect(error: &io::Error, dead_on_purpose: bool) -> Refusal {
    let why = |why| if dead_on_purpose { None } else { Some(why) };
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "no local port is free\n",
            why("no-ephemeral-port"),
        ),
        Some(libc::EMFILE | libc::ENFILE) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "no descriptor is free\n",
            why("no-descriptor"),
        ),
        _ => refusal(StatusCode::BAD_GATEWAY, "the shard refuses\n", why("upstream-refused")),
    }
}
