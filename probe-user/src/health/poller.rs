//! One health request at a time, over a connection of its own whose addresses are known, so that the
//! kernel's record of it can be left out by identity.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::SendRequest,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    path::{FieldError, FieldPath, numbers},
    url::HealthUrl,
};
use crate::clock;

const BODY_LIMIT: usize = 4 << 20;

/// What to ask, and how long to wait.
#[derive(Clone, Debug)]
pub(crate) struct Poller {
    pub(crate) url: HealthUrl,
    pub(crate) reported: FieldPath,
    pub(crate) timeout: Duration,
}

/// What one request came to. Whatever the server said, it said it between `start` and `end`.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) start_mono_ns: i64,
    pub(crate) end_mono_ns: i64,
    /// Our end of the request's connection; `None` if there was none.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) http_status: Option<u16>,
    pub(crate) answer: Result<Answer, Failure>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) reported: i64,
    /// Every number of the body by its path.
    pub(crate) fields: BTreeMap<String, f64>,
}

/// Why there is no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("no answer within {}", clock::short(*.0))]
    Timeout(Duration),
    #[error("no HTTP answer: {0}")]
    Http(String),
    #[error("status {0}")]
    Status(u16),
    #[error("the body is no JSON: {0}")]
    NotJson(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl Failure {
    /// True for what waiting will not mend: a wrong URL or field path.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(self, Self::NotJson(_) | Self::Field(_))
    }
}

/// The half of an open connection that asks.
pub(crate) type Asker = SendRequest<Empty<Bytes>>;

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

impl Poller {
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
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Http(error.to_string()))?;
        tokio::spawn(connection);
        Ok((sender, Link { socket, local, remote }))
    }

    /// Asks once.
    pub(crate) async fn ask(&self, asker: &mut Asker, local: SocketAddr) -> Sample {
        let start_mono_ns = clock::mono_ns();
        let exchange = tokio::time::timeout(self.timeout, self.exchange(asker));
        let result = exchange.await.unwrap_or(Err(Failure::Timeout(self.timeout)));
        let end_mono_ns = clock::mono_ns();
        let (http_status, answer) = match result {
            Ok((status, body)) => (Some(status), self.read(status, &body)),
            Err(failure) => (None, Err(failure)),
        };
        Sample { start_mono_ns, end_mono_ns, local: Some(local), http_status, answer }
    }

    async fn exchange(&self, asker: &mut Asker) -> Result<(u16, Bytes), Failure> {
        let http = |error: &dyn std::fmt::Display| Failure::Http(error.to_string());
        let host = if self.url.host.contains(':') {
            format!("[{}]:{}", self.url.host, self.url.port)
        } else {
            format!("{}:{}", self.url.host, self.url.port)
        };
        let request = Request::get(self.url.target.as_str())
            .header(HOST, host)
            .header(USER_AGENT, concat!("groundtruth-probe/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            // With keep-alive the server's end is still established when the answer is here, so
            // that it can be left out of the count at that moment.
            .header(CONNECTION, "keep-alive")
            .body(Empty::new())
            .map_err(|error| http(&error))?;
        let response = asker.send_request(request).await.map_err(|error| http(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| http(&error))?;
        Ok((status, body.to_bytes()))
    }

    /// A body with the field counts whatever the status: a server that is full may answer 503 and
    /// still say what it holds.
    fn read(&self, status: u16, body: &[u8]) -> Result<Answer, Failure> {
        let or_status = |failure: Failure| {
            if (200..300).contains(&status) { failure } else { Failure::Status(status) }
        };
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| or_status(Failure::NotJson(error.to_string())))?;
        let reported = self.reported.number(&body).map_err(|error| or_status(error.into()))?;
        Ok(Answer { reported, fields: numbers(&body) })
    }
}

/// A request that got no connection.
pub(crate) fn unconnected(start_mono_ns: i64, failure: Failure) -> Sample {
    Sample {
        start_mono_ns,
        end_mono_ns: clock::mono_ns(),
        local: None,
        http_status: None,
        answer: Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with exactly these bytes.
    async fn server(answer: &'static str) -> Poller {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
        Poller {
            url: format!("http://127.0.0.1:{port}/health").parse().unwrap(),
            reported: ".n".parse().unwrap(),
            timeout: Duration::from_millis(300),
        }
    }

    async fn ask(answer: &'static str) -> (Sample, bool) {
        let poller = server(answer).await;
        let (mut asker, link) = poller.connect().await.unwrap();
        let sample = poller.ask(&mut asker, link.local).await;
        (sample, link.is_established())
    }

    #[tokio::test]
    async fn an_answer_has_its_interval_and_its_numbers() {
        let before = clock::mono_ns();
        let (sample, established) =
            ask("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"n\":7,\"x\":1.5}").await;
        assert!(before <= sample.start_mono_ns && sample.start_mono_ns < sample.end_mono_ns);
        let answer = sample.answer.unwrap();
        assert_eq!(answer.reported, 7);
        assert_eq!(answer.fields[".x"], 1.5);
        assert!(established);
    }

    #[tokio::test]
    async fn failures_say_what_is_wrong() {
        for (answer, message) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                "the body is no JSON: expected value at line 1 column 1",
            ),
            ("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno", "status 503"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"m\":1}",
                "the body has no field .n; it has numbers at .m (choose with --reported)",
            ),
            ("", "no answer within 300ms"),
        ] {
            assert_eq!(ask(answer).await.0.answer.unwrap_err().to_string(), message);
        }
    }

    #[tokio::test]
    async fn a_full_server_still_reports() {
        let (sample, _) = ask("HTTP/1.1 503 Full\r\ncontent-length: 8\r\n\r\n{\"n\":-2}").await;
        assert_eq!(sample.answer.unwrap().reported, -2);
        assert_eq!(sample.http_status, Some(503));
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let poller = Poller {
            url: url.parse().unwrap(),
            reported: ".n".parse().unwrap(),
            timeout: Duration::from_secs(1),
        };
        let failure = poller.connect().await.unwrap_err();
        assert!(failure.to_string().starts_with("cannot connect: Connection refused"));
    }
}
