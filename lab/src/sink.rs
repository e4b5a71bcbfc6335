//! A plain TCP server for `churn` and for tests: it accepts, reads, and closes in one of a few ways.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::error::LabError;
use crate::{process, server};

/// What the sink does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SinkMode {
    /// Keep it until the peer is gone, then close
    Hold,
    /// Close at once, before the peer does
    Close,
    /// Keep the descriptor for ever: close_wait after a FIN
    NeverClose,
}

#[derive(Debug, Default)]
struct Totals {
    accepted: AtomicU64,
    open: AtomicI64,
    /// The peer ended it by FIN, by RST.
    ended_fin: AtomicU64,
    ended_rst: AtomicU64,
    never_closed: Mutex<Vec<TcpStream>>,
}

/// Listens, says where, and serves until `stopped` resolves with a signal, or none.
pub(crate) async fn run(
    listen: &[SocketAddr],
    mode: SinkMode,
    json: bool,
    stopped: impl Future<Output = Option<i32>>,
) -> anyhow::Result<()> {
    process::raise_fd_limit();
    let listeners: Vec<_> =
        listen.iter().map(|&at| server::listen(at, 4096, false)).collect::<Result<_, _>>()?;
    server::announce(&listeners, json, |address| format!("listening on {address}"));
    let totals = Arc::new(Totals::default());
    for listener in listeners {
        tokio::spawn(accept(listener, mode, Arc::clone(&totals)));
    }
    let signal = stopped.await;
    print_totals(&totals, json);
    match signal {
        Some(signal) => Err(LabError::Signal(signal).into()),
        None => Ok(()),
    }
}

async fn accept(listener: TcpListener, mode: SinkMode, totals: Arc<Totals>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                server::accept_failed(&error).await;
                continue;
            }
        };
        totals.accepted.fetch_add(1, Ordering::Relaxed);
        if mode == SinkMode::Close {
            continue;
        }
        totals.open.fetch_add(1, Ordering::Relaxed);
        let totals = Arc::clone(&totals);
        tokio::spawn(async move {
            let stream = until_peer_ends(stream, &totals).await;
            if mode == SinkMode::NeverClose {
                totals.never_closed.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            } else {
                drop(stream);
                totals.open.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}

async fn until_peer_ends(mut stream: TcpStream, totals: &Totals) -> TcpStream {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => {
                totals.ended_fin.fetch_add(1, Ordering::Relaxed);
                return stream;
            }
            Ok(_) => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionReset {
                    totals.ended_rst.fetch_add(1, Ordering::Relaxed);
                }
                return stream;
            }
        }
    }
}

fn print_totals(totals: &Totals, json: bool) {
    let accepted = totals.accepted.load(Ordering::Relaxed);
    let open = totals.open.load(Ordering::Relaxed);
    let fin = totals.ended_fin.load(Ordering::Relaxed);
    let rst = totals.ended_rst.load(Ordering::Relaxed);
    if json {
        println!(
            "{}",
            json!({
                "schema_version": 1,
                "accepted": accepted,
                "open": open,
                "ended_fin": fin,
                "ended_rst": rst,
            })
        );
    } else {
        eprintln!("accepted {accepted}; ended by fin {fin}, rst {rst}; {open} open");
    }
}
