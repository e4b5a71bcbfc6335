//! `probe top --remote`: the other host's agent feeds the view, a line of JSON per update.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::client::Client;
use crate::{
    cmd::connections::Wanted,
    error::Error,
    filter::Filter,
    tui::{
        Title,
        live::{Update, Wish, wanted_of},
        table::Connection,
    },
};

/// Between two lists of one service's connections at least, and how many times their own time they
/// rest.
const LIST_EVERY: Duration = Duration::from_secs(1);
const LIST_SHARE: u32 = 4;
/// A line that is longer than a million connections.
const LONGEST: usize = 1 << 30;

/// The first line: who speaks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) schema_version: String,
    pub(crate) host: String,
    /// `ebpf` or `sock_diag`.
    pub(crate) backend: String,
}

/// Starts the feed; what the view wants beside it is asked for apart.
///
/// # Errors
/// [`Error::Input`] where the agent cannot be asked, or refuses.
pub(crate) async fn start(
    agent: Client,
    filter: &Filter,
    updates: mpsc::Sender<Update>,
    wish: Wish,
) -> Result<Title, Error> {
    let agent = Arc::new(agent);
    let body = agent.ask(Method::GET, "/v1/top", &filter.to_query()).await?.into_body();
    let mut lines = Lines { body, buffer: Vec::new(), searched: 0 };
    let Some(first) = lines.next().await else { return Err(ended(&agent)) };
    let hello: Hello = agent.read(&first)?;
    tokio::spawn(list(Arc::clone(&agent), filter.clone(), updates.clone(), wish));
    tokio::spawn(async move {
        loop {
            let update = match lines.next().await {
                Some(line) => {
                    agent.read(&line).unwrap_or_else(|error| Update::Failed(error.into()))
                }
                None => Update::Failed(ended(&agent).into()),
            };
            let is_last = matches!(update, Update::Failed(_));
            if updates.send(update).await.is_err() || is_last {
                return;
            }
        }
    });
    Ok(Title { host: hello.host, backend: hello.backend })
}

fn ended(agent: &Client) -> Error {
    agent.failed(&"the agent ended the view")
}

/// Asks for the connections of the service on the screen, again and again.
async fn list(agent: Arc<Client>, filter: Filter, updates: mpsc::Sender<Update>, mut wish: Wish) {
    loop {
        let service = wish.borrow_and_update().clone();
        let Some(service) = service else {
            if wish.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let update = match agent.connections(&wanted_of(&service, &filter), Wanted::default()).await
        {
            Ok(found) => Update::Connections(Connection::of_service(&found, &service)),
            Err(error) => Update::Failed(error.into()),
        };
        // What was asked for before the user went on is of no use any more.
        let is_stale = wish.has_changed().unwrap_or(true);
        if !is_stale && updates.send(update).await.is_err() {
            return;
        }
        let rest = LIST_EVERY.max(began.elapsed() * LIST_SHARE);
        let _ = tokio::time::timeout(rest, wish.changed()).await;
        if updates.is_closed() {
            return;
        }
    }
}

/// A body, line by line.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold no line feed.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                return Some(line);
            }
            self.searched = self.buffer.len();
            let frame = self.body.frame().await?.ok()?;
            self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if self.buffer.len() > LONGEST {
                return None;
            }
        }
    }
}
