//! The agent's page: the same numbers as `probe top`, sent to every open browser once a second.
//!
//! Numbers are gathered once for all of them, and only while somebody looks.

mod picture;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

use self::picture::Picture;
use crate::{
    cli::Questions,
    clock::Pair,
    export::{listener::Endless, stream::Chunks},
    filter::Filter,
    identity::Identity,
    truth::source::Source,
    tui::{
        board::Board,
        live::{self, Live, Update},
    },
};

/// Browsers that are served at the same time; more are turned away.
const VIEWERS: usize = 64;
/// After a failure.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two looks whether anybody is there.
const IDLE: Duration = Duration::from_millis(500);

/// Nothing from elsewhere runs or loads in the page, and it goes into nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who gathers, and who looks.
#[derive(Debug)]
pub(crate) struct Page {
    pictures: watch::Sender<Bytes>,
    viewers: Arc<Semaphore>,
}

/// What the page is about.
pub(crate) struct Subject {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) identity: Arc<Identity>,
    /// Which server is asked what it holds, and how often; another one from one moment to the next.
    pub(crate) asked: watch::Receiver<Questions>,
}

impl Page {
    /// Starts gathering, which waits for the first browser.
    pub(crate) fn start(mut subject: Subject) -> Arc<Self> {
        let (pictures, _) = watch::channel(Bytes::new());
        let page = Arc::new(Self { pictures, viewers: Arc::new(Semaphore::new(VIEWERS)) });
        tokio::spawn({
            let page = Arc::clone(&page);
            async move {
                loop {
                    tokio::time::sleep(IDLE).await;
                    if page.pictures.receiver_count() > 0
                        && let Err(error) = page.gather(&mut subject).await
                    {
                        eprintln!("probe: the page has no numbers: {error:#}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        page
    }

    /// Gathers until nobody looks any more, or another server is to be asked.
    async fn gather(&self, subject: &mut Subject) -> anyhow::Result<()> {
        let (_no_wish, wished) = watch::channel(None);
        let questions = subject.asked.borrow_and_update().clone();
        let live = Live {
            source: Arc::clone(&subject.source),
            identity: Arc::clone(&subject.identity),
            filter: Filter::default(),
            open_every: live::OPEN_EVERY,
        };
        let mut updates = live::start(live, &questions, wished)?;
        let mut board = Board::default();
        let since_unix_ns = Pair::now().unix_ns;
        let is_asked_for = || self.pictures.receiver_count() > 0;
        while is_asked_for() && !subject.asked.has_changed().unwrap_or(false) {
            let Some(update) = updates.recv().await else {
                anyhow::bail!("the feed ended by itself");
            };
            let is_sample = matches!(update, Update::Counts { .. });
            board.apply(update)?;
            if is_sample {
                let picture = Picture::new(&board, since_unix_ns, subject.identity.host_netns());
                let picture = serde_json::to_string(&picture)?;
                self.pictures.send_replace(Bytes::from(format!("data: {picture}\n\n")));
            }
        }
        Ok(())
    }

    /// The page's own routes.
    pub(crate) fn routes<S: Clone + Send + Sync + 'static>(self: &Arc<Self>) -> Router<S> {
        let page = Arc::clone(self);
        let asset = |kind: &'static str, text: &'static str| {
            get(move || async move {
                let headers = [
                    (CONTENT_TYPE, HeaderValue::from_static(kind)),
                    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
                    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                ];
                (headers, text)
            })
        };
        Router::new()
            .route("/", asset("text/html; charset=utf-8", include_str!("index.html")))
            .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("page.js")))
            .route("/record.js", asset("text/javascript; charset=utf-8", include_str!("record.js")))
            .route("/page.css", asset("text/css; charset=utf-8", include_str!("page.css")))
            .route("/v1/live", get(move || async move { page.stream() }))
    }

    /// Server-sent events, a picture each.
    fn stream(&self) -> Response {
        let Ok(permit) = Arc::clone(&self.viewers).try_acquire_owned() else {
            return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
        };
        let mut pictures = self.pictures.subscribe();
        let (sender, chunks) = mpsc::channel(2);
        tokio::spawn(async move {
            // One that is there already is shown at once.
            pictures.mark_changed();
            // What a slow browser misses is replaced by the next.
            while pictures.changed().await.is_ok() {
                let picture = pictures.borrow_and_update().clone();
                if !picture.is_empty() && sender.send(picture).await.is_err() {
                    break;
                }
                if sender.is_closed() {
                    break;
                }
            }
            drop(permit);
        });
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let mut response = (headers, Body::new(Chunks::new(chunks))).into_response();
        response.extensions_mut().insert(Endless);
        response
    }
}
