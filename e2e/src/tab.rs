//! A page of the agent that stays open, without a browser around it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::probe::Agent;

#[derive(Debug)]
pub struct Tab(BufReader<TcpStream>);

impl Tab {
    /// Opens one at the running agent.
    ///
    /// # Panics
    /// Where none answers.
    #[track_caller]
    #[must_use]
    pub fn open() -> Self {
        let mut stream = TcpStream::connect(Agent::LISTEN).expect("an agent");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let request = format!("GET /v1/live HTTP/1.1\r\nhost: {}\r\n\r\n", Agent::LISTEN);
        stream.write_all(request.as_bytes()).expect("an agent that listens");
        Self(BufReader::new(stream))
    }

    /// The next numbers that the page is sent.
    ///
    /// # Panics
    /// If there are none within 30 s.
    #[track_caller]
    pub fn picture(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("numbers") > 0, "the stream has ended");
            if let Some(picture) = line.strip_prefix("data: ") {
                return serde_json::from_str(picture).expect("JSON");
            }
        }
    }
}
