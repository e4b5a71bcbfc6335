//! One GET at a time, over a connection of its own whose addresses are known, so that the kernel's
//! record of it can be left out by identity.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::SendRequest,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{path::FieldError, tls, url::HealthUrl, weight};
use crate::clock;

const BODY_LIMIT: usize = 64 << 20;

/// Whom to ask, and how long to wait.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) url: HealthUrl,
    pub(crate) timeout: Duration,
    /// Certificates that are trusted beside the host's own.
    pub(crate) ca: Option<PathBuf>,
}

/// What one request came to. Whatever the server said, it said it between start and end, on
/// `CLOCK_MONOTONIC`.
#[derive(Clone, Debug)]
pub(crate) struct Asked<T> {
    pub(crate) start_mono_ns: i64,
    pub(crate) end_mono_ns: i64,
    /// Our end of the request's connection; `None` if there was none.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) http_status: Option<u16>,
    pub(crate) answer: Result<T, Failure>,
}

/// Why there is no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("no answer within {}", clock::short(*.0))]
    Timeout(Duration),
    #[error("no TLS: {why}")]
    Tls { why: String, next: &'static str },
    #[error("no TLS: nobody whom this host trusts has signed the server's certificate")]
    Untrusted,
    #[error("no TLS: the server shows the certificate of an authority, which is none for a server")]
    Authority,
    #[error("nobody speaks TLS there")]
    Plain,
    #[error("no HTTP answer: {0}")]
    Http(String),
    #[error("status {0}")]
    Status(u16),
    #[error(
        "the body has more values than can be kept: expected {expected} MiB of them at the most"
    )]
    TooMuch { expected: usize },
    #[error("the body is no JSON: {0}")]
    NotJson(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the page has none of {wanted}; {near} (choose with --metric)")]
    NoMetric { wanted: String, near: String },
    #[error("{path} is no list of connections with the peer's address and port: {found}")]
    NoList { path: String, found: String },
}

impl Failure {
    /// What to do next, where the failure itself tells.
    pub(crate) fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::Untrusted => Some("name the certificate to trust with --ca FILE"),
            Self::Tls { next, .. } => Some(next),
            Self::Authority => Some(
                "make one with `openssl req -x509 … -addext basicConstraints=critical,CA:FALSE`",
            ),
            Self::Plain => Some("write http:// instead of https://"),
            _ => None,
        }
    }

    /// True for what waiting will not mend: a wrong URL or field path.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::NotJson(_) | Self::Field(_) | Self::NoMetric { .. } | Self::NoList { .. }
        )
    }
}

/// The half of an open connection that asks.
pub(crate) type Asker = SendRequest<Full<Bytes>>;

/// The half that knows what the connection is.
#[derive(Debug)]
pub(crate) struct Link {
    /// A second handle of the socket, to ask the kernel about it while hyper has the first.
    socket: OwnedFd,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Link {
    /// True while the peer's end of the connection is established too, as far as we have heard: it
    /// has sent no FIN and no RST.
    pub(crate) fn is_established(&self) -> bool {
        const TCP_ESTABLISHED: u8 = 1;
        let mut state = 0u8;
        let mut length: libc::socklen_t = 1;
        // SAFETY: the kernel writes at most `length` bytes, the first of `struct tcp_info`, which is
        // the state, into `state`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut state).cast(),
                &raw mut length,
            )
        };
        result == 0 && length == 1 && state == TCP_ESTABLISHED
    }
}

impl Target {
    /// Opens a connection. It is closed when both halves are dropped, unless the server does so.
    pub(crate) async fn connect(&self) -> Result<(Asker, Link), Failure> {
        let connecting = TcpStream::connect((self.url.host.as_str(), self.url.port));
        let stream = tokio::time::timeout(self.timeout, connecting)
            .await
            .map_err(|_| Failure::Timeout(self.timeout))?
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let unreachable = |error: std::io::Error| Failure::Unreachable(error.to_string());
        let local = stream.local_addr().map_err(unreachable)?;
        let remote = stream.peer_addr().map_err(unreachable)?;
        let socket = stream.as_fd().try_clone_to_owned().map_err(unreachable)?;
        let asker = if self.url.tls {
            let greeting = tls::connect(stream, &self.url.host, self.ca.as_deref());
            let stream = tokio::time::timeout(self.timeout, greeting)
                .await
                .map_err(|_| Failure::Timeout(self.timeout))??;
            asker(stream).await?
        } else {
            asker(stream).await?
        };
        Ok((asker, Link { socket, local, remote }))
    }

    /// Asks once on an open connection; `read` makes sense of status and body.
    pub(crate) async fn ask<T>(
        &self,
        asker: &mut Asker,
        local: SocketAddr,
        accept: &str,
        read: impl FnOnce(u16, &[u8]) -> Result<T, Failure>,
    ) -> Asked<T> {
        let start_mono_ns = clock::mono_ns();
        let exchange = tokio::time::timeout(self.timeout, self.exchange(asker, accept));
        let result = exchange.await.unwrap_or(Err(Failure::Timeout(self.timeout)));
        let end_mono_ns = clock::mono_ns();
        let (http_status, answer) = match result {
            Ok((status, body)) => (Some(status), read(status, &body)),
            Err(failure) => (None, Err(failure)),
        };
        Asked { start_mono_ns, end_mono_ns, local: Some(local), http_status, answer }
    }

    /// Asks once on a connection that ends with the answer. Other statuses than 2xx are failures.
    pub(crate) async fn get<T>(
        &self,
        accept: &str,
        read: impl FnOnce(&[u8]) -> Result<T, Failure>,
    ) -> Asked<T> {
        let start_mono_ns = clock::mono_ns();
        match self.connect().await {
            Ok((mut asker, link)) => {
                let read = |status, body: &[u8]| match status {
                    200..300 => read(body),
                    _ => Err(Failure::Status(status)),
                };
                self.ask(&mut asker, link.local, accept, read).await
            }
            Err(failure) => unconnected(start_mono_ns, failure),
        }
    }

    async fn exchange(&self, asker: &mut Asker, accept: &str) -> Result<(u16, Bytes), Failure> {
        let http = |error: &dyn std::fmt::Display| Failure::Http(error.to_string());
        let host = if self.url.host.contains(':') {
            format!("[{}]:{}", self.url.host, self.url.port)
        } else {
            format!("{}:{}", self.url.host, self.url.port)
        };
        let request = Request::get(self.url.target.as_str())
            .header(HOST, host)
            .header(USER_AGENT, concat!("groundtruth-probe/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept)
            // With keep-alive the server's end is still established when the answer is here, so
            // that it can be left out of the count at that moment.
            .header(CONNECTION, "keep-alive")
            .body(Full::default())
            .map_err(|error| http(&error))?;
        let response = asker.send_request(request).await.map_err(|error| http(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| http(&error))?
            .to_bytes();
        weight::check(&body)?;
        Ok((status, body))
    }
}

/// Speaks HTTP on an open connection.
async fn asker(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Asker, Failure> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Http(error.to_string()))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A request that got no connection.
pub(crate) fn unconnected<T>(start_mono_ns: i64, failure: Failure) -> Asked<T> {
    Asked {
        start_mono_ns,
        end_mono_ns: clock::mono_ns(),
        local: None,
        http_status: None,
        answer: Err(failure),
    }
}
