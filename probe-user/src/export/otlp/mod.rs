//! Hands metrics and failed handshakes to an OpenTelemetry receiver: OTLP over HTTP, as protobuf, which
//! is the form that every receiver of the HTTP kind reads (some refuse its JSON).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::time::MissedTickBehavior;

mod content;

use super::json::Counts;
use crate::{
    clock::{self, Pair},
    filter::Filter,
    health::request::Target,
    identity::Identity,
    truth::source::Source,
    tui::live::{Live, OPEN_EVERY},
};

/// Failed handshakes that wait for a receiver; more are dropped, and that is said.
const WAITING: usize = 10_000;
/// Of a refusal's text, at most.
const WHY_BYTES: usize = 4096;
const WHY_CHARACTERS: usize = 200;

/// Where to, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
}

/// Failed handshakes on their way.
#[derive(Debug, Default)]
struct Failures {
    waiting: VecDeque<LogRecord>,
    dropped: u64,
    /// The receiver has no place for logs.
    refused: bool,
}

impl Failures {
    fn push(&mut self, record: LogRecord) {
        if self.refused {
            return;
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(record);
    }
}

/// Exports as long as it is polled. A receiver that is away misses metrics, and gets the failures
/// later.
pub(crate) async fn export(receiver: Receiver, source: Arc<dyn Source>, identity: Arc<Identity>) {
    let live = Live {
        source: Arc::clone(&source),
        identity: Arc::clone(&identity),
        filter: Filter::default(),
        open_every: OPEN_EVERY,
    };
    let mut ended = source.ended();
    let mut failures = Failures::default();
    let mut was_away = false;
    let mut ticks = tokio::time::interval(receiver.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(batch) = crate::tui::live::next(&mut ended) => {
                let now = Pair::now();
                for leg in live.legs(&batch).iter().filter(|leg| leg.is_failure()) {
                    failures.push(content::failure(leg, now));
                }
            }
            _ = ticks.tick() => {
                let result = send(&receiver.target, source.as_ref(), &identity, &mut failures).await;
                let url = &receiver.target.url;
                match &result {
                    Err(error) if !was_away => {
                        eprintln!("probe: {url}: {error}; trying again every {}", clock::short(receiver.interval));
                    }
                    Ok(()) if was_away => {
                        let dropped = std::mem::take(&mut failures.dropped);
                        eprintln!("probe: {url}: takes metrics again; {dropped} failed handshakes were dropped");
                        // It may be another one now.
                        failures.refused = false;
                    }
                    _ => {}
                }
                was_away = result.is_err();
            }
        }
    }
}

async fn send(
    target: &Target,
    source: &dyn Source,
    identity: &Identity,
    failures: &mut Failures,
) -> Result<(), String> {
    let words = |error: anyhow::Error| format!("{error:#}");
    let slots = source.slots().map_err(words)?;
    identity.refresh(slots.iter().map(|slot| slot.key)).await;
    let exactness = source.exactness().map_err(words)?;
    let counts = Counts::new(&slots, source.backend(), exactness, identity, &Filter::default());
    let metrics = content::metrics(&counts).encode_to_vec();
    post(target, "/v1/metrics", metrics).await?.map_err(|refusal| refusal.why)?;
    if failures.waiting.is_empty() {
        return Ok(());
    }
    let records = failures.waiting.iter().cloned().collect();
    match post(target, "/v1/logs", content::logs(records).encode_to_vec()).await? {
        Ok(()) => failures.waiting.clear(),
        // The protocol's word for "not this, not ever", but for what is only too much at a time.
        Err(refusal)
            if refusal.status.is_client_error()
                && refusal.status != StatusCode::TOO_MANY_REQUESTS =>
        {
            eprintln!(
                "probe: {}: takes metrics and no logs ({}): failed handshakes are counted at /metrics, \
                 but not handed on; name a receiver that takes both",
                target.url, refusal.why
            );
            failures.refused = true;
            failures.waiting.clear();
        }
        Err(refusal) => return Err(refusal.why),
    }
    Ok(())
}

/// What a receiver answers that takes nothing.
struct Refusal {
    status: StatusCode,
    why: String,
}

/// `Err` where there is no answer.
async fn post(target: &Target, path: &str, body: Vec<u8>) -> Result<Result<(), Refusal>, String> {
    let url = &target.url;
    let path = format!("{}{path}", url.target.trim_end_matches('/'));
    let exchange = async {
        let (mut asker, _link) = target.connect().await.map_err(|error| error.to_string())?;
        let request = Request::post(&path)
            .header(HOST, format!("{}:{}", url.host, url.port))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("groundtruth-probe/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let response = asker.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let is_text = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/plain")));
        // Read to its end, so that the receiver sees no broken connection.
        let said = said(response.into_body()).await;
        if status.is_success() {
            return Ok(Ok(()));
        }
        let mut why = format!("status {status} to {path}");
        if is_text && !said.is_empty() {
            why = format!("{why}: {said}");
        }
        Ok(Err(Refusal { status, why }))
    };
    tokio::time::timeout(target.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", clock::short(target.timeout))))
}

/// The first line of an answer, as it can stand in a terminal.
async fn said(body: Incoming) -> String {
    let body = Limited::new(body, WHY_BYTES).collect().await;
    let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let text = String::from_utf8_lossy(&body);
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(WHY_CHARACTERS).collect()
}
