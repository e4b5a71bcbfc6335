//! One client: connect, upgrade, talk, leave in the way it was told to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_KEY};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Plan;
use super::outstanding::Outstanding;
use super::record::{End, EndedBy, Record};
use crate::net::bind_address_no_port;
use crate::server::websocket::config;
use crate::units::unix_ns;

/// How long the other side may take to answer a close frame or a FIN.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection closed so soon after the upgrade, and before any frame, was never usable.
const RIGHT_AFTER: i64 = 1_000_000_000;

/// One client among many.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) connection: u64,
    pub(super) source: Option<IpAddr>,
    pub(super) end: End,
    /// When it leaves (or falls silent).
    pub(super) end_at: Instant,
    /// When a silent one is closed for good.
    pub(super) last: Instant,
    /// Set when the whole run is stopped early.
    pub(super) stop: watch::Receiver<bool>,
}

pub(super) async fn run(plan: &Plan, mut part: Part) -> Record {
    let mut record = Record::start(part.connection, plan.remote);
    plan.live.started.fetch_add(1, Ordering::Relaxed);
    let connecting = connect(plan, part.source, &mut record);
    let stream = match timeout(plan.connect_timeout, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (outcome, text) = connect_failure(&error);
            record.failed(outcome, text);
            return record;
        }
        Err(_) => {
            let patience = humantime::format_duration(plan.connect_timeout);
            record.failed("unknown", format!("not connected after {patience}"));
            return record;
        }
    };
    record.connected_unix_ns = Some(unix_ns());
    plan.live.connected.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);

    let mut request = plan.request.clone();
    // A key of its own, as RFC 6455 asks for: by it the legs of one client are told from another's.
    if let Ok(key) = HeaderValue::try_from(generate_key()) {
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
    }
    let handshake = client_async_with_config(request, stream, Some(config()));
    let mut socket = match timeout(plan.handshake_timeout, handshake).await {
        Ok(Ok((socket, response))) => {
            record.http_status = Some(response.status().as_u16());
            socket
        }
        Ok(Err(error)) => {
            handshake_failure(&mut record, &error);
            return record;
        }
        Err(_) => {
            let patience = humantime::format_duration(plan.handshake_timeout);
            record.failed("no_response_client_left", format!("no answer after {patience}"));
            record.ended(EndedBy::Client, End::Fin);
            return record;
        }
    };
    record.upgraded_unix_ns = Some(unix_ns());
    record.outcome = "upgraded".to_owned();
    plan.live.upgraded.fetch_add(1, Ordering::Relaxed);
    plan.live.open.fetch_add(1, Ordering::Relaxed);
    if talk(plan, &mut part, &mut record, &mut socket).await {
        leave(&mut part, &mut record, socket).await;
    }
    plan.live.open.fetch_sub(1, Ordering::Relaxed);
    record
}

/// Connects; the local address is in the record before anybody has answered.
async fn connect(
    plan: &Plan,
    source: Option<IpAddr>,
    record: &mut Record,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(plan.remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&plan.remote.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    if let Some(local) = socket.local_addr().ok().and_then(|local| local.as_socket()) {
        record.set_local(local);
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

fn connect_failure(error: &io::Error) -> (&'static str, String) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ("reset_before_established", "connection refused: the SYN was answered by RST".into())
        }
        io::ErrorKind::AddrNotAvailable => {
            ("unknown", "no ephemeral port is free for this address pair".into())
        }
        io::ErrorKind::TimedOut => ("unknown", "the kernel gave up connecting".into()),
        _ => ("unknown", error.to_string()),
    }
}

fn handshake_failure(record: &mut Record, error: &Error) {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            record.http_status = Some(status);
            record.failed(format!("http_{status}"), format!("answered {}", response.status()));
            record.ended(EndedBy::Client, End::Fin);
        }
        Error::Protocol(
            ProtocolError::SecWebSocketAcceptKeyMismatch
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingConnectionUpgradeHeader,
        ) => {
            record.http_status = Some(101);
            record.failed("http_101_wrong_accept", error.to_string());
            record.ended(EndedBy::Client, End::Fin);
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            record.failed("no_response_server_closed", "closed before an answer");
            record.ended(EndedBy::Server, End::Fin);
        }
        Error::Io(io)
            if matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
        {
            record.failed("no_response_server_reset", "reset before an answer");
            record.ended(EndedBy::Server, End::Rst);
        }
        Error::Protocol(ProtocolError::HttparseError(why)) => {
            record.failed("not_http", format!("the answer is no HTTP: {why}"));
            record.ended(EndedBy::Client, End::Fin);
        }
        error => {
            record.failed("unknown", error.to_string());
            record.ended(EndedBy::Network, End::Error);
        }
    }
}

/// Sends, answers and measures until it is time to leave. False if the other side ended it.
async fn talk(
    plan: &Plan,
    part: &mut Part,
    record: &mut Record,
    socket: &mut WebSocketStream<TcpStream>,
) -> bool {
    const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
    let ticks = |every: Option<Duration>| {
        let every = every.unwrap_or(NEVER);
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut messages, mut heartbeats) = (ticks(plan.message_interval), ticks(plan.heartbeat));
    let name = format!("lab {} ", record.connection);
    let (mut messages_out, mut heartbeats_out) = (Outstanding::default(), Outstanding::default());
    let mut close_code = None;

    loop {
        let outgoing = tokio::select! {
            incoming = socket.next() => {
                match incoming {
                    Some(Ok(Message::Text(text))) => {
                        record.messages_received += 1;
                        plan.live.received.fetch_add(1, Ordering::Relaxed);
                        let number = text.strip_prefix(&name).and_then(|number| number.parse().ok());
                        if let Some(sent) = number.and_then(|number| messages_out.answered(number)) {
                            record.add_rtt(micros_since(sent));
                        }
                    }
                    Some(Ok(Message::Binary(_))) => {
                        record.messages_received += 1;
                        plan.live.received.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Ok(Message::Pong(payload))) => {
                        let number = payload[..].try_into().map(u64::from_be_bytes).ok();
                        if let Some(sent) = number.and_then(|number| heartbeats_out.answered(number)) {
                            record.heartbeats_answered += 1;
                            record.add_rtt(micros_since(sent));
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        close_code = Some(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    None => {
                        ended_by_server(record, close_code, None);
                        return false;
                    }
                    Some(Err(error)) => {
                        ended_by_server(record, close_code, Some(&error));
                        return false;
                    }
                }
                continue;
            }
            _ = messages.tick() => {
                let number = record.messages_sent;
                record.messages_sent += 1;
                plan.live.sent.fetch_add(1, Ordering::Relaxed);
                messages_out.sent(number);
                Message::text(format!("{name}{number}"))
            }
            _ = heartbeats.tick() => {
                let number = record.heartbeats_sent;
                record.heartbeats_sent += 1;
                heartbeats_out.sent(number);
                Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))
            }
            () = sleep_until(part.end_at) => return true,
            _ = part.stop.wait_for(|stop| *stop) => return true,
        };
        match timeout(GOODBYE, socket.send(outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                ended_by_server(record, close_code, Some(&error));
                return false;
            }
            Err(_) => record.error = Some("the server does not read".into()),
        }
    }
}

fn micros_since(sent: Instant) -> f64 {
    sent.elapsed().as_nanos() as f64 / 1e3
}

fn ended_by_server(record: &mut Record, close_code: Option<u16>, error: Option<&Error>) {
    let (by, end) = match error {
        None | Some(Error::ConnectionClosed | Error::AlreadyClosed) => {
            (EndedBy::Server, End::CloseFrame)
        }
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            (EndedBy::Server, End::Fin)
        }
        Some(Error::Io(io))
            if matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
        {
            (EndedBy::Server, End::Rst)
        }
        Some(_) => (EndedBy::Network, End::Error),
    };
    record.close_code = close_code;
    record.ended(by, end);
    let heard = record.messages_received + record.heartbeats_answered > 0 || close_code.is_some();
    let open_ns = record.upgraded_unix_ns.zip(record.closed_unix_ns).map(|(from, to)| to - from);
    if !heard && open_ns.is_some_and(|ns| ns < RIGHT_AFTER) {
        record.outcome = "closed_right_after_upgrade".to_owned();
    }
    if end != End::CloseFrame {
        let text = error.map_or_else(|| "closed".to_owned(), ToString::to_string);
        record.error = Some(text);
    }
}

async fn leave(part: &mut Part, record: &mut Record, mut socket: WebSocketStream<TcpStream>) {
    match part.end {
        End::CloseFrame | End::Error => {
            let bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = timeout(GOODBYE, async {
                socket.close(Some(bye)).await?;
                while let Some(message) = socket.next().await {
                    if let Message::Close(Some(frame)) = message? {
                        record.close_code = Some(frame.code.into());
                    }
                }
                Ok::<_, Error>(())
            })
            .await;
            record.ended(EndedBy::Client, End::CloseFrame);
        }
        End::Fin => {
            let mut stream = socket.into_inner();
            let _ = timeout(GOODBYE, async {
                stream.shutdown().await?;
                // Closing with unread bytes would send an RST instead.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                io::Result::Ok(())
            })
            .await;
            record.ended(EndedBy::Client, End::Fin);
        }
        End::Rst => {
            let stream = socket.into_inner();
            let _ = stream.set_zero_linger();
            record.ended(EndedBy::Client, End::Rst);
        }
        End::Silent => {
            let last = part.last;
            tokio::select! {
                () = sleep_until(last) => {}
                _ = part.stop.wait_for(|stop| *stop) => {}
            }
            record.ended(EndedBy::Client, End::Silent);
        }
    }
}
