//! How many answers are made at the same time, and how much of them waits for who reads slowly.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use super::holding::Holding;

/// Answers that are made at the same time; more wait for their turn. Each may walk all sockets: many at
/// once would keep those waiting who ask by the Unix socket, and share the processors with scrapes.
const CONCURRENT: usize = 2;
/// As many of those that walk nothing: a scrape does not wait for who walks.
const QUICK_CONCURRENT: usize = 4;
const QUICK: [&str; 2] = ["/metrics", "/healthz"];
/// Answers of each kind that are made and not read yet, in KiB: a quarter of what the systemd unit grants
/// for both. One that is larger has all of it.
const ROOM_KIB: u32 = 64 << 10;
/// An answer that takes longer is given up, the wait for its turn and for room included.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Turns {
    walking: Kind,
    quick: Kind,
}

#[derive(Debug)]
struct Kind {
    turns: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Kind {
    fn new(turns: usize) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        Self { turns: Arc::new(Semaphore::new(turns)), room }
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { walking: Kind::new(CONCURRENT), quick: Kind::new(QUICK_CONCURRENT) }
    }

    /// Waits for a turn, and makes the answer in it. What has begun goes on where nobody waits for it any
    /// more, and its turn ends with it: whoever asks and leaves at once gets no more walks made than others.
    async fn answer(
        &self,
        is_quick: bool,
        answer: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let kind = if is_quick { &self.quick } else { &self.walking };
        // The semaphore is never closed.
        let permit = Arc::clone(&kind.turns).acquire_owned().await.ok();
        let room = Arc::clone(&kind.room);
        let made = tokio::spawn(async move {
            let _permit = permit;
            keep(answer.await, room).await
        });
        made.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

/// Waits for room for an answer whose size is known; a stream is its maker's to bound.
async fn keep(response: Response, room: Arc<Semaphore>) -> Response {
    let Some(bytes) = response.body().size_hint().exact() else { return response };
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ROOM_KIB);
    // The semaphore is never closed.
    let room = room.acquire_many_owned(kib).await.ok();
    response.map(|body| Body::new(Holding::new(body, room)))
}

/// Keeps a flood of requests from becoming a flood of dumps.
pub(super) async fn bound(
    State(turns): State<Arc<Turns>>,
    request: Request,
    next: Next,
) -> Response {
    let is_quick = QUICK.contains(&request.uri().path());
    let answer = turns.answer(is_quick, next.run(request));
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(response) => response,
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "gave up after 10 s\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn answer(kib: usize) -> Response {
        Response::new(Body::from(vec![0; kib << 10]))
    }

    #[tokio::test]
    async fn what_nobody_reads_leaves_no_room_for_more() {
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        let keep = |kib| keep(answer(kib), Arc::clone(&room));
        let half = ROOM_KIB as usize / 2;
        let unread = [keep(half).await, keep(half).await];
        let late = tokio::time::timeout(Duration::from_millis(50), keep(1));
        assert!(late.await.is_err());
        // Streams and empty answers need none.
        let _ = keep(0).await;
        drop(unread);
        let whole = keep(2 * half + 1).await;
        assert_eq!(whole.body().size_hint().exact(), Some((2 * half as u64 + 1) << 10));
    }

    #[tokio::test]
    async fn who_leaves_gives_no_turn_back_that_is_still_used() {
        let turns = Turns::new();
        let (finish, finished) = oneshot::channel::<()>();
        let work = async move {
            let _ = finished.await;
            answer(1)
        };
        let asked = tokio::time::timeout(Duration::from_millis(50), turns.answer(false, work));
        assert!(asked.await.is_err());
        assert_eq!(turns.walking.turns.available_permits(), CONCURRENT - 1);
        finish.send(()).unwrap();
        let _all = turns.walking.turns.acquire_many(CONCURRENT as u32).await.unwrap();
    }
}
