//! `probe record --remote`: the other host's agent records, and the rows are written here as they
//! come. A capture that breaks off reads up to there, as one of this host would.

use std::path::Path;

use capture::copy::Copy;
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};

use super::{Newer, asked_there, client::Client, frames};
use crate::{
    exit::Exit,
    record::session::{Finished, Plan, agent_ended},
};

/// Records until `stop`; says through `recording` when it has begun.
///
/// # Errors
/// [`Error`](crate::error::Error) where the agent cannot be asked or ends, `WriteError` for what cannot be written.
pub(crate) async fn take(
    agent: &Client,
    plan: &Plan,
    output: &Path,
    recording: impl Fn(),
    stop: impl Future<Output = Exit>,
) -> anyhow::Result<(Exit, Finished)> {
    if !plan.asked.is_nothing() {
        return Err(asked_there().into());
    }
    let mut query = plan.filter.to_query();
    if !plan.websocket.is_empty() {
        let ports: Vec<String> = plan.websocket.iter().map(ToString::to_string).collect();
        query.push(("websocket", ports.join(",")));
    }
    let mut frames = Frames {
        body: agent.ask(Method::POST, "/v1/recordings", &query).await?.into_body(),
        buffer: Vec::new(),
    };
    let number = match frames.next(agent).await? {
        Some((name, number)) if name == frames::NUMBER => String::from_utf8(number)?,
        _ => return Err(agent_ended().into()),
    };
    let mut copy = Copy::create(output, plan.command_line.clone())?;
    recording();
    tokio::pin!(stop);
    let mut exit = None;
    let mut newer = Newer::default();
    loop {
        let next = tokio::select! {
            next = frames.next(agent) => next?,
            stopped = &mut stop, if exit.is_none() => {
                exit = Some(stopped);
                agent.ask(Method::DELETE, &format!("/v1/recordings/{number}"), &[]).await?;
                continue;
            }
        };
        match next {
            Some((name, finished)) if name == frames::FINISHED => {
                copy.finish()?;
                return Ok((exit.unwrap_or(Exit::Done), agent.read(&finished)?));
            }
            Some((name, why)) if name == frames::FAILED => {
                return Err(agent.failed(&String::from_utf8_lossy(&why)).into());
            }
            Some((name, bytes)) => {
                if !copy.take(&name, &bytes)? {
                    newer.leave_out(&name);
                }
            }
            None => return Err(agent_ended().into()),
        }
    }
}

struct Frames {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Frames {
    /// `None` at the end. May be dropped and called again.
    async fn next(&mut self, agent: &Client) -> anyhow::Result<Option<(String, Vec<u8>)>> {
        loop {
            let whole = frames::take(&mut self.buffer).map_err(|error| agent.failed(&error))?;
            if whole.is_some() {
                return Ok(whole);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
