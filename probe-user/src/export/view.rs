//! The feed of `probe top --remote`: what the live view takes from a kernel, as lines of JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::{
    http::{Agent, Parameters, Refused},
    json::SCHEMA_VERSION,
    listener::Endless,
    stream::Chunks,
};
use crate::{
    cmd::top::host,
    filter::Filter,
    remote::view::Hello,
    tui::live::{self, Live},
};

/// Views that are fed at the same time.
pub(super) const MOST: usize = 8;
/// Some hundred bytes for each open connection travel this often at most.
const OPEN_EVERY: Duration = Duration::from_secs(3);
/// Lines that wait for a slow reader before the feed does.
const WAITING: usize = 4;

/// `GET /v1/top`
pub(super) async fn feed(
    State(agent): State<Arc<Agent>>,
    Query(parameters): Parameters,
) -> Result<Response, Refused> {
    let filter = Filter::from_query(&parameters, &[]).map_err(Refused::Query)?;
    let Ok(permit) = Arc::clone(&agent.views).try_acquire_owned() else {
        let why = format!("{MOST} views are fed already\n");
        return Ok((StatusCode::SERVICE_UNAVAILABLE, why).into_response());
    };
    let (source, identity) = (Arc::clone(&agent.source), Arc::clone(&agent.identity));
    let slots = source.slots()?;
    identity.refresh(slots.iter().map(|slot| slot.key)).await;
    filter.check_containers(&identity)?;
    let hello = Hello {
        schema_version: SCHEMA_VERSION.into(),
        host: host(),
        backend: source.backend().name().into(),
    };
    let questions = agent.asked.borrow().clone();
    let (no_wish, wished) = watch::channel(None);
    let live = Live { source, identity, filter, open_every: OPEN_EVERY };
    let mut updates = live::start(live, &questions, wished)?;
    let (lines, chunks) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let (_permit, _no_wish) = (permit, no_wish);
        let mut next = line(&hello);
        while let Some(line) = next {
            if lines.send(line).await.is_err() {
                return;
            }
            // A reader that is gone is noticed at the next update, a second later at most.
            next = match updates.recv().await {
                Some(update) => self::line(&update),
                None => None,
            };
        }
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    let mut response = (kind, Body::new(Chunks::new(chunks))).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

/// `None` for a failure, which is the end. A line may have all connections of the host: others are answered
/// meanwhile.
fn line(what: &impl Serialize) -> Option<Bytes> {
    let mut line = tokio::task::block_in_place(|| serde_json::to_vec(what)).ok()?;
    line.push(b'\n');
    Some(line.into())
}
