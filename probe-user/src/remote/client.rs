//! Asks another host's agent over HTTP, with its token.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, HOST, USER_AGENT},
};
use serde::de::DeserializeOwned;

use crate::{
    cli::{Remote, Trust},
    cmd::connections::Wanted,
    error::Error,
    export::{
        json::{ConnectionJson, ConnectionList, Counts, Refusal},
        token::Token,
    },
    filter::{Filter, with_query},
    health::{
        request::{Failure, Target},
        url::HealthUrl,
    },
};

/// As long as the agent itself gives an answer, and a bit for the way.
const TIMEOUT: Duration = Duration::from_secs(15);
/// 100,000 connections are 60 MB of JSON.
const BODY_LIMIT: usize = 1 << 30;

/// Whom to ask, and what to show.
#[derive(Clone)]
pub(crate) struct Client {
    target: Target,
    token: Option<Arc<Token>>,
}

impl Client {
    /// `None` where the command line names no other host.
    ///
    /// # Errors
    /// [`Error::Input`] for a token that cannot be read, or a URL that is more than a host.
    pub(crate) fn of(remote: &Remote, trust: &Trust) -> Result<Option<Self>, Error> {
        let Some(url) = remote.remote.clone() else { return Ok(None) };
        if url.target != "/" {
            return Err(Error::input(
                format!("{url}: the path is the agent's own to choose"),
                format!("name its host and port only: --remote {}", at(&url)),
            ));
        }
        let token = remote.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
        let target = Target { url, timeout: TIMEOUT, ca: trust.ca.clone() };
        Ok(Some(Self { target, token }))
    }

    pub(crate) async fn counts(&self, filter: &Filter) -> Result<Counts, Error> {
        self.get("/v1/counts", filter.to_query()).await
    }

    pub(crate) async fn connections(
        &self,
        filter: &Filter,
        wanted: Wanted,
    ) -> Result<Vec<ConnectionJson>, Error> {
        let mut query = filter.to_query();
        query.extend(wanted.pid.map(|pid| ("pid", pid.to_string())));
        let age = wanted.older_than.map(|age| humantime::format_duration(age).to_string());
        query.extend(age.map(|age| ("older_than", age)));
        let list: ConnectionList = self.get("/v1/connections", query).await?;
        Ok(list.connections)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Vec<(&'static str, String)>,
    ) -> Result<T, Error> {
        let response = self.ask(Method::GET, path, &query).await?;
        let body = tokio::time::timeout(TIMEOUT, self.body(response))
            .await
            .map_err(|_| self.failed(&"the answer did not end within 15 s"))??;
        self.read(&body)
    }

    /// Asks over a connection of its own, and returns once the answer has begun.
    ///
    /// # Errors
    /// [`Error::Input`] where the agent cannot be reached, or refuses.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Response<Incoming>, Error> {
        let url = &self.target.url;
        let (mut asker, _link) =
            self.target.connect().await.map_err(|failure| self.unreachable(&failure))?;
        let mut request = Request::builder()
            .method(method)
            .uri(with_query(path, query))
            .header(HOST, at(url).split_once("//").map_or("", |(_, host)| host))
            .header(USER_AGENT, concat!("groundtruth-probe/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.bearer());
        }
        let request = request.body(Full::default()).map_err(|error| self.failed(&error))?;
        let response = tokio::time::timeout(TIMEOUT, asker.send_request(request))
            .await
            .map_err(|_| self.failed(&"no answer within 15 s"))?
            .map_err(|error| self.no_http(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED => Err(self.unauthorized()),
            status => Err(self.refused(status, &self.body(response).await?)),
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        Ok(body.map_err(|error| self.failed(&error))?.to_bytes())
    }

    /// Reads an answer of the agent.
    ///
    /// # Errors
    /// [`Error::Input`] where it is of another version, or of something else.
    pub(crate) fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| {
            Error::input(
                format!("{}: the answer cannot be read: {error}", self.target.url),
                "is it an agent (`probe serve`), and of this version?",
            )
        })
    }

    /// A failure on the way, once the agent was reached.
    pub(crate) fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        Error::input(format!("{}: {why}", self.target.url), "does the agent still run there?")
    }

    fn unreachable(&self, failure: &Failure) -> Error {
        let next = failure
            .next_step()
            .unwrap_or("does `probe serve --listen` run there, and may this host connect?");
        Error::input(format!("{}: {failure}", self.target.url), next)
    }

    fn no_http(&self, error: &hyper::Error) -> Error {
        let url = &self.target.url;
        let next = if url.tls {
            "is it an agent (`probe serve`)?"
        } else {
            "is it an agent (`probe serve`)? one with a certificate wants https://"
        };
        Error::input(format!("{url}: no HTTP answer: {error}"), next)
    }

    fn unauthorized(&self) -> Error {
        let url = &self.target.url;
        match self.token {
            None => Error::input(
                format!("{url}: the agent wants to see a token"),
                "name the file that holds it with --token-file FILE",
            ),
            Some(_) => Error::input(
                format!("{url}: the token is not the agent's"),
                "compare it with the file that `probe serve --token-file` reads there",
            ),
        }
    }

    /// What the agent says is wrong is the user's to know, in its words.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let url = &self.target.url;
        match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { error, next: Some(next), .. }) => Error::input(error, next),
            Ok(Refusal { error, next: None, .. }) => {
                Error::input(format!("{url}: {error}"), format!("the agent answered {status}"))
            }
            Err(_) => Error::input(
                format!("{url}: status {status}: {}", String::from_utf8_lossy(body).trim()),
                "is it an agent (`probe serve`), and of this version?",
            ),
        }
    }
}

/// Scheme, host and port.
fn at(url: &HealthUrl) -> String {
    let scheme = if url.tls { "https" } else { "http" };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    format!("{scheme}://{host}:{}", url.port)
}
