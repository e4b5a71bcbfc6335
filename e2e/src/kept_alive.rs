//! A connection to the agent over which one request follows the other, so that none takes a descriptor.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::probe::Agent;

#[derive(Debug)]
pub struct KeptAlive(TcpStream);

impl KeptAlive {
    /// # Panics
    /// If the agent takes no connection.
    #[must_use]
    pub fn to_agent() -> Self {
        let stream = TcpStream::connect(Agent::LISTEN).expect("the agent takes connections");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out can be set");
        Self(stream)
    }

    /// Whether the agent calls its counts exact, and why not.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn verdict(&mut self) -> (bool, String) {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        self.0.write_all(request).expect("the agent reads");
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        let body = loop {
            let read = self.0.read(&mut some).expect("the agent answers");
            assert!(read > 0, "cut off: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&some[..read]);
            let text = String::from_utf8_lossy(&answer);
            let whole = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
            if let Some(Ok(body)) = whole {
                break body;
            }
        };
        let body: Value = body;
        (body["exact"] == true, body["degraded"].to_string())
    }
}
