//! One WebSocket on the server: echo, heartbeat, and how it ended.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Server;
use crate::fault::Ending;
use std::sync::atomic::Ordering;

/// Buffers as small as the messages: the default of 128 KiB a connection is more than the kernel's.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0)
}

/// How long a write may wait for a peer that does not read.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Serves `stream`, which has been answered 101, to its end. The socket comes back open: whether it
/// is closed is the caller's matter.
pub(super) async fn serve(server: &Server, stream: TcpStream, read: Bytes) -> (Ending, TcpStream) {
    let mut socket =
        WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config()))
            .await;
    let ending = converse(server, &mut socket).await;
    (ending, socket.into_inner())
}

async fn converse(server: &Server, socket: &mut WebSocketStream<TcpStream>) -> Ending {
    let ping_interval = server.options.ping_interval;
    let period = ping_interval.unwrap_or(Duration::from_secs(3600));
    let mut ping = interval_at(Instant::now() + period, period);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered_since: Option<Instant> = None;
    let mut stop = server.stop.subscribe();
    let silence = async |since: Option<Instant>| match since {
        Some(since) => tokio::time::sleep_until(since + server.options.ping_timeout).await,
        None => std::future::pending().await,
    };

    loop {
        tokio::select! {
            message = socket.next() => {
                let answer = match message {
                    None => return Ending::CloseFrame,
                    Some(Err(error)) => return ending(&error),
                    Some(Ok(Message::Pong(_))) => {
                        unanswered_since = None;
                        continue;
                    }
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                    // tungstenite answers pings and close frames itself, at the next read.
                    Some(Ok(_)) => continue,
                };
                server.totals.messages.fetch_add(1, Ordering::Relaxed);
                if let Err(ending) = send(socket, answer).await {
                    return ending;
                }
            }
            _ = ping.tick(), if ping_interval.is_some() => {
                if let Err(ending) = send(socket, Message::Ping(Bytes::new())).await {
                    return ending;
                }
                unanswered_since.get_or_insert_with(Instant::now);
            }
            () = silence(unanswered_since) => return Ending::Timeout,
            _ = stop.changed() => {
                let away = CloseFrame { code: CloseCode::Away, reason: "server stops".into() };
                let _ = timeout(Duration::from_secs(1), socket.close(Some(away))).await;
                return Ending::Shutdown;
            }
        }
    }
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: Message) -> Result<(), Ending> {
    match timeout(WRITE_PATIENCE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ending(&error)),
        Err(_) => Err(Ending::Timeout),
    }
}

fn ending(error: &Error) -> Ending {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ending::CloseFrame,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Fin,
        Error::Io(error) => match error.kind() {
            // A write after the peer's RST gets EPIPE.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ending::Rst,
            io::ErrorKind::TimedOut => Ending::Timeout,
            _ => Ending::Fin,
        },
        _ => Ending::Protocol,
    }
}
