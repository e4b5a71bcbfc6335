//! `probe top --remote`: the other host's agent feeds the view, a line of JSON per update.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use tokio::sync::mpsc;

use super::{Newer, client::Client};
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
        let mut newer = Newer::default();
        loop {
            let update = match lines.next().await {
                Some(line) => match update(&agent, &line) {
                    Ok(Known::Update(update)) => update,
                    Ok(Known::Not(kind)) => {
                        newer.leave_out(&kind);
                        continue;
                    }
                    Err(error) => Update::Failed(error.into()),
                },
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

/// A line, if this version knows its kind.
enum Known {
    Update(Update),
    Not(String),
}

fn update(agent: &Client, line: &[u8]) -> Result<Known, Error> {
    let error = match agent.read(line) {
        Ok(update) => return Ok(Known::Update(update)),
        Err(error) => error,
    };
    // Each is an object with its kind as the only key.
    let kinds: BTreeMap<String, IgnoredAny> = serde_json::from_slice(line).unwrap_or_default();
    match kinds.into_keys().find(|kind| !Update::KINDS.contains(&kind.as_str())) {
        Some(kind) => Ok(Known::Not(kind)),
        None => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::watch,
    };

    use super::*;
    use crate::{
        cli::{Remote, Trust},
        tui::board::Board,
    };

    const HELLO: &str =
        r#"{"schema_version":"1.9","host":"vm","backend":"ebpf","since":"a newer version"}"#;
    const COUNTS: &str = r#"{"Counts":{"at_mono_ns":1,"unix_ns":2,"levels":[[{"container":"web",
        "port":3005,"role":"passive","zone":"b"},{"established":23,"upgraded":20,"close_wait":0,
        "closed_held":0,"listening":true,"opened_total":23,"closed_total":0,"newer":1}]],
        "degraded":[],"exact":true,"newer":{"deep":[1]}}}"#;

    /// Sends these lines to whoever asks, and nothing more.
    async fn agent(lines: Vec<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let body: String = lines.iter().map(|line| line.replace('\n', " ") + "\n").collect();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    async fn seen(lines: &[&str]) -> (Title, mpsc::Receiver<Update>) {
        let address = agent(lines.iter().map(|line| (*line).to_owned()).collect()).await;
        let remote = format!("http://{address}").parse().unwrap();
        let remote = Remote { remote: Some(remote), token_file: None };
        let client = Client::of(&remote, &Trust { ca: None }).unwrap().unwrap();
        let (updates, received) = mpsc::channel(8);
        let (_, wish) = watch::channel(None);
        let title = start(client, &Filter::default(), updates, wish).await.unwrap();
        (title, received)
    }

    #[tokio::test]
    async fn a_newer_agent_may_say_more() {
        let more = [r#"{"Weather":{"degrees":-3}}"#, r#"{"Weather":"rain"}"#];
        let (title, mut updates) = seen(&[HELLO, more[0], COUNTS, more[1], COUNTS]).await;
        assert_eq!(title.host, "vm");
        let mut board = Board::default();
        for _ in 0..2 {
            board.apply(updates.recv().await.unwrap()).unwrap();
        }
        let levels: Vec<i64> = board.lines.values().map(|line| line.level.established).collect();
        assert_eq!(levels, [23]);
        assert!(matches!(updates.recv().await, Some(Update::Failed(_))), "the agent has ended");
    }

    #[tokio::test]
    async fn what_no_agent_says_is_an_error() {
        for line in [r#"{"Counts":{"exact":true}}"#, "[1]", "no JSON"] {
            let (_, mut updates) = seen(&[HELLO, line, COUNTS]).await;
            let Some(Update::Failed(error)) = updates.recv().await else { panic!("{line}") };
            assert!(error.to_string().contains("the answer cannot be read"), "{error}");
            assert!(updates.recv().await.is_none());
        }
    }
}
