//! The agent's HTTP side: metrics and JSON for everybody on this host, and on the Unix socket also
//! raw records for our own commands.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper::body::{Bytes, Frame};
use probe_common::{
    key::{CountKey, CountSlot},
    state::role,
};
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc::Receiver, oneshot, watch},
};

use super::{
    classic,
    handshakes::{self, Handshakes},
    json::{ConnectionList, Counts, Refusal, SCHEMA_VERSION},
    prometheus, protobuf,
    recordings::{self, Recordings},
    token::{self, Token},
    turns::{self, Turns},
    view,
};
use crate::{
    cli::Questions,
    cmd::{
        connections::{self, Wanted},
        count,
    },
    error::Error,
    filter::Filter,
    handshake::follow::Observed,
    identity::Identity,
    page::Page,
    truth::{
        agent::AgentState,
        raw,
        source::{Ended, Exactness, Source},
    },
};

/// How long a scrape waits for a look at the open connections; what a longer one finds is in the next.
const LOOK_PATIENCE: Duration = Duration::from_millis(50);
/// How far answers that look at every socket stand back behind others, as nice(2) counts it.
const ASIDE: i32 = 10;
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the handlers share.
pub(crate) struct Agent {
    pub(super) source: Arc<dyn Source>,
    pub(super) identity: Arc<Identity>,
    /// What a recording asks, beside the kernel.
    pub(super) asked: watch::Receiver<Questions>,
    pub(super) recordings: Recordings,
    pub(super) views: Arc<Semaphore>,
    /// `None` where handshakes are not followed.
    handshakes: Option<Arc<Handshakes>>,
    turns: Arc<Turns>,
}

impl Agent {
    pub(crate) fn new(
        source: Arc<dyn Source>,
        identity: Arc<Identity>,
        asked: watch::Receiver<Questions>,
    ) -> Arc<Self> {
        Arc::new(Self {
            handshakes: Handshakes::start(source.as_ref()),
            source,
            identity,
            asked,
            recordings: Recordings::default(),
            views: Arc::new(Semaphore::new(view::MOST)),
            turns: Arc::new(Turns::new()),
        })
    }

    /// Handshakes so far, by the names that their services have today.
    async fn handshakes(&self) -> anyhow::Result<prometheus::Tallies> {
        let Some(handshakes) = self.handshakes.clone() else { return Ok(BTreeMap::new()) };
        let (looker, source) = (Arc::clone(&handshakes), Arc::clone(&self.source));
        // A look at every connection takes a while: not on the thread that answers others.
        let look = tokio::task::spawn_blocking(move || looker.look(source.as_ref()));
        if let Ok(looked) = tokio::time::timeout(LOOK_PATIENCE, look).await {
            looked??;
        }
        let mut by_service = prometheus::Tallies::new();
        for (key, tally) in handshakes.tallies() {
            by_service.entry(self.service(&key)).or_default().add(&tally);
        }
        Ok(by_service)
    }

    fn service(&self, key: &CountKey) -> prometheus::Service {
        let role = role::name(key.role);
        if *key == handshakes::OTHERS {
            return ("other".into(), "none".into(), 0, role);
        }
        let container = self.identity.of(key);
        (container.name, container.runtime.name().to_owned(), key.port, role)
    }

    async fn counts(&self, filter: &Filter) -> anyhow::Result<(Vec<CountSlot>, Counts, Exactness)> {
        let slots = self.source.slots()?;
        let populations = slots.iter().map(|slot| slot.key);
        self.identity.refresh_soon(populations).await;
        let exactness = self.source.exactness()?;
        let backend = self.source.backend();
        let counts = Counts::new(&slots, backend, exactness.clone(), &self.identity, filter);
        Ok((slots, counts, exactness))
    }
}

/// For the TCP listener: nothing raw, and only for who may ask.
pub(crate) fn public(agent: Arc<Agent>, page: &Arc<Page>, token: Option<Arc<Token>>) -> Router {
    routes(&agent)
        .route("/v1/recordings", post(recordings::begin))
        .route("/v1/recordings/{number}", delete(recordings::stop))
        .route("/v1/top", get(view::feed))
        .merge(page.routes())
        .layer(middleware::from_fn_with_state(token, token::check))
        .with_state(agent)
}

/// For the Unix socket, whose file mode says who may ask.
pub(crate) fn private(agent: Arc<Agent>) -> Router {
    routes(&agent)
        .route("/v1/raw/state", get(raw_state))
        .route("/v1/raw/settle", get(raw_settle))
        .route("/v1/raw/slots", get(raw_slots))
        .route("/v1/raw/connections", get(raw_connections))
        .route("/v1/raw/events", get(raw_events))
        .with_state(agent)
}

fn routes(agent: &Arc<Agent>) -> Router<Arc<Agent>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/counts", get(counts))
        .route("/v1/connections", get(connections_json))
        .route("/healthz", get(healthz))
        .layer(middleware::from_fn_with_state(Arc::clone(&agent.turns), turns::bound))
}

/// A failure to ask the kernel, or a filter that is none.
pub(super) enum Refused {
    Query(String),
    /// What it is about, and what to do next.
    Input(String, String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Input { what, next } => Self::Input(what, next),
            other => Self::Failed(other.into()),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, error, next) = match self {
            Self::Query(error) => (StatusCode::BAD_REQUEST, error, None),
            Self::Input(error, next) => (StatusCode::BAD_REQUEST, error, Some(next)),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"), None),
        };
        let refusal = Refusal { schema_version: SCHEMA_VERSION.into(), error, next };
        (status, Json(refusal)).into_response()
    }
}

pub(super) type Parameters = Query<HashMap<String, String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OpenMetrics,
    Classic,
    Protobuf,
}

/// Scrapers name first what they like best.
fn metrics_form(accepted: &str) -> Form {
    let known = accepted.split(',').find_map(|kind| match kind.split(';').next()?.trim() {
        "application/openmetrics-text" => Some(Form::OpenMetrics),
        // The message's name and its encoding go without saying: others were never in use.
        protobuf::NAME => Some(Form::Protobuf),
        "text/plain" => Some(Form::Classic),
        _ => None,
    });
    known.unwrap_or(Form::Classic)
}

async fn metrics(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Result<Response, Refused> {
    let (slots, counts, exactness) = agent.counts(&Filter::default()).await?;
    let mut established = BTreeMap::new();
    for slot in &slots {
        *established.entry(agent.service(&slot.key)).or_insert(0) += slot.established_total;
    }
    let vitals = agent.source.vitals();
    let costs = agent.source.costs();
    let handshakes = agent.handshakes().await?;
    let text = prometheus::text(&counts, &established, &exactness, &vitals, &costs, &handshakes)
        .map_err(|error| Refused::Failed(error.into()))?;
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (kind, body) = match metrics_form(accepted) {
        Form::OpenMetrics => (METRICS_TYPE, text.into_bytes()),
        Form::Classic => (classic::TYPE, classic::of_openmetrics(&text).into_bytes()),
        Form::Protobuf => {
            let histograms = prometheus::histograms(&handshakes);
            let classic = classic::of_openmetrics(&text);
            (protobuf::TYPE, protobuf::of_classic(&classic, &histograms))
        }
    };
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response())
}

async fn counts(
    State(agent): State<Arc<Agent>>,
    Query(parameters): Parameters,
) -> Result<Response, Refused> {
    let filter = Filter::from_query(&parameters, &[]).map_err(Refused::Query)?;
    aside(move || {
        let (source, identity) = (agent.source.as_ref(), &agent.identity);
        let counts = Handle::current().block_on(count::now(source, identity, &filter))?;
        filter.check_containers(identity)?;
        Ok(counts)
    })
    .await
}

/// Looks at every socket take a while, and so does the text of what they find: not on the threads that
/// answer others, and only when those need no processor.
async fn aside<T: Serialize>(
    make: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<Response, Refused> {
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let _inside = runtime.enter();
        // Of this thread alone.
        let _ = rustix::process::nice(ASIDE);
        let text = make().and_then(|answer| {
            serde_json::to_vec(&answer).map_err(|error| Refused::Failed(error.into()))
        });
        let _ = tell.send(text);
    };
    let failed = |error: anyhow::Error| Refused::Failed(error);
    thread::Builder::new()
        .name("aside".into())
        .spawn(work)
        .map_err(|error| failed(error.into()))?;
    let text = told.await.map_err(|error| failed(error.into()))??;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

async fn connections_json(
    State(agent): State<Arc<Agent>>,
    Query(parameters): Parameters,
) -> Result<Response, Refused> {
    let filter = Filter::from_query(&parameters, &["pid", "older_than"]).map_err(Refused::Query)?;
    let pid = parameters
        .get("pid")
        .map(|pid| pid.parse().map_err(|_| Refused::Query(format!("pid {pid:?} is no number"))))
        .transpose()?;
    let older_than = parameters
        .get("older_than")
        .map(|age| {
            humantime::parse_duration(age)
                .map_err(|error| Refused::Query(format!("older_than {age:?}: {error}")))
        })
        .transpose()?;
    aside(move || {
        let (source, identity) = (agent.source.as_ref(), &agent.identity);
        let wanted = Wanted { pid, older_than };
        let found = connections::find(source, identity, &filter, wanted);
        let connections = Handle::current().block_on(found)?;
        filter.check_containers(identity)?;
        Ok(ConnectionList { schema_version: SCHEMA_VERSION.into(), connections })
    })
    .await
}

async fn healthz(State(agent): State<Arc<Agent>>) -> Result<Response, Refused> {
    let exactness = agent.source.exactness()?;
    Ok(Json(serde_json::json!({
        "schema_version": SCHEMA_VERSION,
        "status": "ok",
        "exact": exactness.exact,
        "detail_complete": exactness.detail_complete,
        "degraded": exactness.degraded,
    }))
    .into_response())
}

async fn raw_state(State(agent): State<Arc<Agent>>) -> Result<Json<AgentState>, Refused> {
    Ok(Json(AgentState {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        backend: agent.source.backend(),
        hooks: agent.source.hooks(),
        exactness: agent.source.exactness()?,
        vitals: agent.source.vitals(),
    }))
}

async fn raw_settle(State(agent): State<Arc<Agent>>) -> Result<&'static str, Refused> {
    tokio::task::spawn_blocking(move || agent.source.settle())
        .await
        .map_err(|error| Refused::Failed(error.into()))??;
    Ok("")
}

async fn raw_slots(State(agent): State<Arc<Agent>>) -> Result<Vec<u8>, Refused> {
    Ok(records(&agent.source.slots()?))
}

async fn raw_connections(State(agent): State<Arc<Agent>>) -> Result<Vec<u8>, Refused> {
    tokio::task::spawn_blocking(move || Ok(records(&agent.source.connections()?)))
        .await
        .map_err(|error| Refused::Failed(error.into()))?
}

fn records<R: raw::Record>(records: &[R]) -> Vec<u8> {
    let mut answer = raw::header::<R>().to_vec();
    answer.extend_from_slice(raw::bytes(records));
    answer
}

async fn raw_events(State(agent): State<Arc<Agent>>) -> Response {
    match agent.source.ended() {
        Some(batches) => Body::new(Events {
            header: Some(Bytes::copy_from_slice(&raw::header::<Observed>())),
            batches,
        })
        .into_response(),
        None => (StatusCode::NOT_FOUND, "connections' ends are not seen, or not asked for\n")
            .into_response(),
    }
}

/// The stream of ended connections as a body that ends with the agent.
struct Events {
    header: Option<Bytes>,
    batches: Receiver<Ended>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(Frame::data(header))));
        }
        self.batches.poll_recv(context).map(|batch| {
            batch.map(|ended| Ok(Frame::data(Bytes::copy_from_slice(raw::bytes(&ended)))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_names_first() {
        let open =
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
        assert_eq!(metrics_form(open), Form::OpenMetrics);
        let native = "application/vnd.google.protobuf;\
                      proto=io.prometheus.client.MetricFamily;encoding=delimited";
        assert_eq!(metrics_form(&format!("{native},{open}")), Form::Protobuf);
        assert_eq!(metrics_form(&format!("{open},{native};q=0.1")), Form::OpenMetrics);
        assert_eq!((metrics_form("*/*"), metrics_form("")), (Form::Classic, Form::Classic));
    }
}
