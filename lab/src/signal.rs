//! When to stop: a signal, or the end of a duration.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves with the number of the signal that came (SIGINT or SIGTERM).
pub(crate) async fn signalled() -> i32 {
    let handler = |kind: SignalKind| (signal(kind).ok(), kind.as_raw_value());
    let (mut int, int_number) = handler(SignalKind::interrupt());
    let (mut term, term_number) = handler(SignalKind::terminate());
    tokio::select! {
        Some(()) = async { int.as_mut()?.recv().await } => int_number,
        Some(()) = async { term.as_mut()?.recv().await } => term_number,
        else => std::future::pending().await,
    }
}

/// Resolves with a signal's number, or with `None` after `duration`.
pub(crate) async fn signalled_within(duration: Option<Duration>) -> Option<i32> {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        signal = signalled() => Some(signal),
        () = over => None,
    }
}
