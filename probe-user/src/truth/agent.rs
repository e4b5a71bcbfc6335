//! Counts from a running agent (`probe serve`), asked over its Unix socket.
//!
//! The calls of [`Source`] block; a thread of its own does the talking, so they may be made from
//! anywhere.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc as blocking,
    time::Duration,
};

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
};
use hyper_util::rt::TokioIo;
use probe_common::key::CountSlot;
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixStream,
    sync::mpsc::{self, Receiver},
};

use super::{
    raw,
    source::{Backend, Ended, Exactness, Source},
};
use crate::{
    error::Error,
    export::json::{Counts, Refusal},
    filter::{Filter, with_query},
    handshake::follow::Observed,
};

/// Where the agent listens unless told otherwise.
pub(crate) const SOCKET: &str = "/run/groundtruth/agent.sock";

/// A host under full load may be slow, but not this slow.
const TIMEOUT: Duration = Duration::from_secs(10);

const UNREADABLE: &str =
    "the agent's answer cannot be read: restart the agent with the installed version";

/// Batches that wait for a slow reader before the agent is made to wait.
const EVENT_BATCHES: usize = 64;

/// What the agent says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentState {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) backend: Backend,
    pub(crate) hooks: Vec<String>,
    pub(crate) exactness: Exactness,
    pub(crate) vitals: Vec<(String, i64)>,
}

enum Call {
    Get { path: String, answer: blocking::Sender<anyhow::Result<Bytes>> },
    Events { batches: mpsc::Sender<Ended>, answer: blocking::Sender<anyhow::Result<Bytes>> },
}

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    calls: mpsc::UnboundedSender<Call>,
    pub(crate) state: AgentState,
}

impl Agent {
    /// Asks who listens on the socket; `None` if nobody does.
    ///
    /// # Errors
    /// When somebody does, but is no agent of this version, or may not be asked.
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Option<Self>> {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => {}
            Err(error) if is_nobody(&error, socket) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot ask {}", socket.display()));
            }
        }
        let (calls, queue) = mpsc::unbounded_channel();
        let socket = socket.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("agent-client".into())
            .spawn(move || runtime.block_on(talk(socket, queue)))?;
        let state = ask_state(&calls)?;
        Ok(Some(Self { calls, state }))
    }
}

/// The counts as the agent on this socket knows them, its names of containers included; `None` if nobody
/// listens there.
///
/// # Errors
/// [`Error::Input`] for a filter that the agent refuses; else when it cannot be asked.
pub(crate) async fn counts(socket: &Path, filter: &Filter) -> anyhow::Result<Option<Counts>> {
    let stream = match UnixStream::connect(socket).await {
        Err(error) if is_nobody(&error, socket) => return Ok(None),
        stream => stream.with_context(|| format!("cannot ask {}", socket.display()))?,
    };
    let mut connection = Some(handshake(stream).await?);
    let path = with_query("/v1/counts", &filter.to_query());
    let body = fetch(socket, &mut connection, &path).await?;
    serde_json::from_slice(&body).context(UNREADABLE)
}

/// Whether a failed connect means that no agent listens, or none that this user may ask, which is said.
fn is_nobody(error: &io::Error, socket: &Path) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    if error.kind() == PermissionDenied {
        let socket = socket.display();
        eprintln!(
            "probe: only root may ask the agent at {socket}, if one runs: use sudo for its counts"
        );
    }
    matches!(error.kind(), NotFound | ConnectionRefused | PermissionDenied)
}

fn get(calls: &mpsc::UnboundedSender<Call>, path: &str) -> anyhow::Result<Bytes> {
    let (answer, wait) = blocking::channel();
    calls
        .send(Call::Get { path: path.to_owned(), answer })
        .map_err(|_| anyhow!("the agent's client ended"))?;
    wait.recv().context("the agent's client ended")?
}

fn ask_state(calls: &mpsc::UnboundedSender<Call>) -> anyhow::Result<AgentState> {
    let body = get(calls, "/v1/raw/state")?;
    serde_json::from_slice(&body).context(UNREADABLE)
}

impl Source for Agent {
    fn backend(&self) -> Backend {
        self.state.backend
    }

    fn hooks(&self) -> Vec<String> {
        self.state.hooks.clone()
    }

    fn slots(&self) -> anyhow::Result<Vec<CountSlot>> {
        Ok(raw::parse(&get(&self.calls, "/v1/raw/slots")?)?)
    }

    fn settle(&self) -> anyhow::Result<()> {
        get(&self.calls, "/v1/raw/settle").map(drop)
    }

    fn connections(&self) -> anyhow::Result<Vec<Observed>> {
        Ok(raw::parse(&get(&self.calls, "/v1/raw/connections")?)?)
    }

    fn exactness(&self) -> anyhow::Result<Exactness> {
        Ok(ask_state(&self.calls)?.exactness)
    }

    fn vitals(&self) -> Vec<(String, i64)> {
        // An agent that cannot be asked fails the calls for counts, which say so.
        ask_state(&self.calls).map(|state| state.vitals).unwrap_or_default()
    }

    fn ended(&self) -> Option<Receiver<Ended>> {
        let (batches, receiver) = mpsc::channel(EVENT_BATCHES);
        let (answer, wait) = blocking::channel();
        self.calls.send(Call::Events { batches, answer }).ok()?;
        // The stream has begun once the agent has answered: nothing that ends later is missed.
        wait.recv().ok()?.ok()?;
        Some(receiver)
    }
}

async fn talk(socket: PathBuf, mut queue: mpsc::UnboundedReceiver<Call>) {
    let mut connection = None;
    while let Some(call) = queue.recv().await {
        match call {
            Call::Get { path, answer } => {
                let body = fetch(&socket, &mut connection, &path).await;
                let _ = answer.send(body);
            }
            Call::Events { batches, answer } => {
                let socket = socket.clone();
                tokio::spawn(async move {
                    match subscribe(&socket).await {
                        Ok((body, rest)) => {
                            let _ = answer.send(Ok(Bytes::new()));
                            forward(body, rest, batches).await;
                        }
                        Err(error) => {
                            let _ = answer.send(Err(error));
                        }
                    }
                });
            }
        }
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(socket: &Path) -> anyhow::Result<Sender> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("the agent at {} is gone", socket.display()))?;
    handshake(stream).await
}

async fn handshake(stream: UnixStream) -> anyhow::Result<Sender> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(sender: &mut Sender, path: &str) -> anyhow::Result<hyper::Response<Incoming>> {
    let request = Request::get(path).header("host", "agent").body(Empty::new())?;
    let response = tokio::time::timeout(TIMEOUT, sender.send_request(request))
        .await
        .with_context(|| format!("the agent did not answer {path} within 10 s"))??;
    if response.status() != StatusCode::OK {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if let Ok(Refusal { error, next: Some(next), .. }) = serde_json::from_slice(&body) {
            return Err(Error::input(error, next).into());
        }
        let text = String::from_utf8_lossy(&body);
        return Err(anyhow!("the agent answered {status} to {path}: {}", text.trim()));
    }
    Ok(response)
}

async fn fetch(socket: &Path, kept: &mut Option<Sender>, path: &str) -> anyhow::Result<Bytes> {
    if let Some(sender) = kept.as_mut()
        && sender.ready().await.is_err()
    {
        *kept = None; // the agent has closed it meanwhile
    }
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => connect(socket).await?,
    };
    let response = send(&mut sender, path).await?;
    let body = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await??.to_bytes();
    *kept = Some(sender);
    Ok(body)
}

/// Opens the stream of ended connections and reads its header.
async fn subscribe(socket: &Path) -> anyhow::Result<(Incoming, Vec<u8>)> {
    let mut sender = connect(socket).await?;
    let mut body = send(&mut sender, "/v1/raw/events").await?.into_body();
    let mut buffer = Vec::new();
    while buffer.len() < raw::HEADER {
        let frame = body.frame().await.context("the agent ended the stream")??;
        if let Some(data) = frame.data_ref() {
            buffer.extend_from_slice(data);
        }
    }
    raw::check_header::<Observed>(&buffer)?;
    buffer.drain(..raw::HEADER);
    Ok((body, buffer))
}

async fn forward(mut body: Incoming, mut buffer: Vec<u8>, batches: mpsc::Sender<Ended>) {
    loop {
        let ended: Ended = raw::take(&mut buffer);
        if !ended.is_empty() && batches.send(ended).await.is_err() {
            return;
        }
        match body.frame().await {
            Some(Ok(frame)) => buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
            // The agent is gone: the reader sees its end of the channel close.
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_as_soon_as_it_is_made_and_again_until_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = tokio::spawn(async move {
            for (connection, asks) in [(1, 2), (2, 1)] {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..asks {
                    let _ = stream.read(&mut [0; 1024]).await.unwrap();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{connection}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let stream = UnixStream::connect(&path).await.unwrap();
        let mut kept = Some(handshake(stream).await.unwrap());
        for connection in ["1", "1", "2"] {
            assert_eq!(fetch(&path, &mut kept, "/").await.unwrap(), connection);
        }
        agent.await.unwrap();
    }
}
