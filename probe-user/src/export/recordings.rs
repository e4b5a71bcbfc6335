//! Recordings that the agent makes for other hosts: the capture's messages go out as they are
//! written, and nothing of them stays here.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use capture::CaptureWriter;
use hyper::body::{Bytes, Frame};
use tokio::sync::{Notify, mpsc};

use super::{
    http::{Agent, Parameters, Refused},
    listener::Endless,
};
use crate::{
    error::Error,
    filter::Filter,
    record::{
        output::OnBreak,
        session::{Plan, Session},
    },
    remote::frames::{self, frame},
};

/// Recordings at the same time.
const MOST: usize = 8;
/// What may wait for a slow reader before its recording is given up. All of them together have half of
/// what the systemd unit grants.
const WAITING: usize = 32 << 20;

/// Those that run, by number.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    last: u64,
    stops: HashMap<u64, Arc<Notify>>,
}

/// A place among them, free again once this is dropped.
struct Place {
    number: u64,
    stop: Arc<Notify>,
    agent: Arc<Agent>,
}

impl Place {
    fn take(agent: &Arc<Agent>) -> Option<Self> {
        let mut running = agent.recordings.lock();
        if running.stops.len() >= MOST {
            return None;
        }
        running.last += 1;
        let (number, stop) = (running.last, Arc::new(Notify::new()));
        running.stops.insert(number, Arc::clone(&stop));
        Some(Self { number, stop, agent: Arc::clone(agent) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.agent.recordings.lock().stops.remove(&self.number);
    }
}

impl Recordings {
    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        // Nothing panics between two writes that belong together.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `POST /v1/recordings`: frames, until it is stopped or the reader goes.
pub(super) async fn begin(
    State(agent): State<Arc<Agent>>,
    Query(parameters): Parameters,
) -> Result<Response, Refused> {
    let filter = Filter::from_query(&parameters, &["websocket"]).map_err(Refused::Query)?;
    let websocket = parameters.get("websocket").map_or("", String::as_str);
    let websocket: crate::filter::Ports = websocket.parse().map_err(Refused::Query)?;
    let Some(place) = Place::take(&agent) else {
        let why = format!("{MOST} recordings run already, and no more are made at the same time");
        return Err(Refused::Query(why));
    };
    let (pipe, body) = pipe();
    let plan = Plan {
        filter,
        websocket: websocket.iter().collect(),
        asked: agent.asked.borrow().clone(),
        on_break: OnBreak::Stop,
        command_line: Vec::new(),
    };
    let (source, identity) = (Arc::clone(&agent.source), Arc::clone(&agent.identity));
    // The reader has it first, so that it knows how to stop what follows.
    pipe.send(frames::NUMBER, place.number.to_string().as_bytes()).map_err(anyhow::Error::from)?;
    let writer = {
        let pipe = pipe.clone();
        move |meta: &_| {
            CaptureWriter::stream(Arc::new(move |name, bytes| pipe.send(name, bytes)), meta)
        }
    };
    let session = Session::begin(plan, source, identity, writer).await;
    let session = session.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => Refused::from(error),
        Err(error) => Refused::Failed(error),
    })?;
    tokio::spawn(async move {
        let stop = async {
            tokio::select! {
                () = place.stop.notified() => {}
                () = pipe.reader_is_gone() => {}
            }
        };
        // A reader that is gone is told nothing any more.
        let _ = match session.run(stop).await {
            Ok(((), finished)) => serde_json::to_vec(&finished)
                .map_err(io::Error::from)
                .and_then(|finished| pipe.send(frames::FINISHED, &finished)),
            Err(error) => pipe.send(frames::FAILED, format!("{error:#}").as_bytes()),
        };
    });
    let mut response =
        ([(CONTENT_TYPE, "application/octet-stream")], Body::new(body)).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

/// `DELETE /v1/recordings/NUMBER`: the last rows, then the end of its frames.
pub(super) async fn stop(State(agent): State<Arc<Agent>>, Path(number): Path<u64>) -> Response {
    match agent.recordings.lock().stops.get(&number) {
        Some(stop) => {
            stop.notify_one();
            StatusCode::OK.into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such recording runs\n").into_response(),
    }
}

/// From the recording, which never waits, to a body.
#[derive(Clone)]
struct Pipe {
    frames: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

fn pipe() -> (Pipe, Frames) {
    let (sender, frames) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Pipe { frames: sender, waiting: Arc::clone(&waiting) }, Frames { frames, waiting })
}

impl Pipe {
    fn send(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let frame = frame(name, bytes);
        let is_last = name == frames::FAILED;
        if self.waiting.fetch_add(frame.len(), Ordering::Relaxed) > WAITING && !is_last {
            return Err(io::Error::other("the reader is too slow: 32 MiB wait for it"));
        }
        self.frames.send(frame.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn reader_is_gone(&self) {
        self.frames.closed().await;
    }
}

struct Frames {
    frames: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames.poll_recv(context).map(|frame| {
            let frame = frame?;
            self.waiting.fetch_sub(frame.len(), Ordering::Relaxed);
            Some(Ok(Frame::data(frame)))
        })
    }
}
