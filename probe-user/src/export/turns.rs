//! How many answers are made at the same time, and how much of them waits for who reads slowly.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers that are made at the same time; more wait for their turn. Each may walk all sockets: many at
/// once would keep those waiting who ask by the Unix socket.
const CONCURRENT: usize = 4;
/// As many of those that walk nothing: a scrape does not wait for who walks.
const QUICK_CONCURRENT: usize = 4;
const QUICK: [&str; 2] = ["/metrics", "/healthz"];
/// Answers that are made and not read yet, in KiB: a quarter of what the systemd unit grants. One that
/// is larger has all of it.
const ROOM_KIB: u32 = 128 << 10;
/// An answer that takes longer is given up, the wait for its turn and for room included.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Turns {
    walking: Semaphore,
    quick: Semaphore,
    room: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            walking: Semaphore::new(CONCURRENT),
            quick: Semaphore::new(QUICK_CONCURRENT),
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
        }
    }

    /// Waits for room for an answer whose size is known; a stream is its maker's to bound.
    async fn keep(&self, response: Response) -> Response {
        let Some(bytes) = response.body().size_hint().exact() else { return response };
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ROOM_KIB);
        // The semaphore is never closed.
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok();
        response.map(|body| Body::new(Kept { body, _room: room }))
    }
}

/// Keeps a flood of requests from becoming a flood of dumps.
pub(super) async fn bound(
    State(turns): State<Arc<Turns>>,
    request: Request,
    next: Next,
) -> Response {
    let is_quick = QUICK.contains(&request.uri().path());
    let answer = async {
        let kind = if is_quick { &turns.quick } else { &turns.walking };
        // The semaphore is never closed.
        let _permit = kind.acquire().await;
        turns.keep(next.run(request).await).await
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(response) => response,
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "gave up after 10 s\n").into_response(),
    }
}

/// A body that has its room until it is sent, or its reader is gone.
struct Kept {
    body: Body,
    _room: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kib: usize) -> Response {
        Response::new(Body::from(vec![0; kib << 10]))
    }

    #[tokio::test]
    async fn what_nobody_reads_leaves_no_room_for_more() {
        let turns = Turns::new();
        let half = ROOM_KIB as usize / 2;
        let unread = [turns.keep(answer(half)).await, turns.keep(answer(half)).await];
        let late = tokio::time::timeout(Duration::from_millis(50), turns.keep(answer(1)));
        assert!(late.await.is_err());
        // Streams and empty answers need none.
        let _ = turns.keep(answer(0)).await;
        drop(unread);
        let whole = turns.keep(answer(2 * half + 1)).await;
        assert_eq!(whole.body().size_hint().exact(), Some((2 * half as u64 + 1) << 10));
    }
}
