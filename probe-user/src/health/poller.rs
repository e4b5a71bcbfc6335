//! What a server's health body says: how many connections it holds, and its other numbers.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;

use super::{
    path::{FieldPath, numbers},
    request::{Asked, Asker, Failure, Link, Target},
    shards::{self, ShardReport},
};

/// What to ask.
#[derive(Clone, Debug)]
pub(crate) struct Poller {
    pub(crate) target: Target,
    pub(crate) reported: FieldPath,
    /// Where a balancer's body lists its shards.
    pub(crate) shards: FieldPath,
}

/// What one request came to.
pub(crate) type Sample = Asked<Answer>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) reported: i64,
    /// Every number of the body by its path.
    pub(crate) fields: BTreeMap<String, f64>,
    /// Empty where the body lists none.
    pub(crate) shards: Vec<ShardReport>,
}

impl Poller {
    /// Opens a connection, as [`Target::connect`].
    pub(crate) async fn connect(&self) -> Result<(Asker, Link), Failure> {
        self.target.connect().await
    }

    /// Asks once.
    pub(crate) async fn ask(&self, asker: &mut Asker, local: SocketAddr) -> Sample {
        let read = |status, body: &[u8]| self.read(status, body);
        self.target.ask(asker, local, "application/json", read).await
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
        let shards = shards::read(&body, &self.shards);
        Ok(Answer { reported, fields: numbers(&body)?, shards })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::clock;

    fn poller(url: &str, timeout: Duration) -> Poller {
        Poller {
            target: Target { url: url.parse().unwrap(), timeout, ca: None },
            reported: ".n".parse().unwrap(),
            shards: ".shards".parse().unwrap(),
        }
    }

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
        let url = format!("http://127.0.0.1:{port}/health");
        poller(&url, Duration::from_millis(300))
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
        let poller = poller(&url, Duration::from_secs(1));
        let failure = poller.connect().await.unwrap_err();
        assert!(failure.to_string().starts_with("cannot connect: Connection refused"));
    }
}
