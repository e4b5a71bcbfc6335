//! The truth of a run: one JSON line for every connection that a fault hit.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::error::file_error;
use crate::units::unix_ns;

/// The connection that a server or a balancer was hit on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The client's own address, where a balancer in between has passed it on.
    pub(crate) client: Option<SocketAddr>,
}

/// One hit. `remote_*` and `local_*` are written from the side of the process that has the fault,
/// with the names that a capture has. `client_*` is the client's own address, whatever is between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) unix_ns: i64,
    pub(crate) fault: String,
    /// What the handshake comes to on this leg, if the fault decides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<String>,
    pub(crate) client_address: String,
    pub(crate) client_port: u16,
    pub(crate) remote_address: String,
    pub(crate) remote_port: u16,
    pub(crate) local_address: String,
    pub(crate) local_port: u16,
}

impl Hit {
    pub(crate) fn now(fault: &str, outcome: Option<String>, leg: &Leg) -> Self {
        let client = leg.client.unwrap_or(leg.remote);
        Hit {
            unix_ns: unix_ns(),
            fault: fault.to_owned(),
            outcome,
            client_address: client.ip().to_canonical().to_string(),
            client_port: client.port(),
            remote_address: leg.remote.ip().to_canonical().to_string(),
            remote_port: leg.remote.port(),
            local_address: leg.local.ip().to_canonical().to_string(),
            local_port: leg.local.port(),
        }
    }
}

/// Appends hits to a file. Each line is one `write`, so that several processes may share the file
/// and a killed one leaves whole lines.
#[derive(Debug)]
pub(crate) struct TruthLog {
    path: PathBuf,
    file: Mutex<File>,
}

impl TruthLog {
    pub(crate) fn append_to(path: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| file_error(path, "open the truth file", &error))?;
        Ok(TruthLog { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Writes one hit. A truth with a hole is worth nothing, so the caller must not go on without it.
    pub(crate) fn write(&self, hit: &Hit) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(hit)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(&line)
            .map_err(|error| file_error(&self.path, "write the truth file", &error))
    }
}

/// Reads a truth file back; a file that does not exist is a run in which nothing was hit.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Hit>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error(path, "read the truth file", &error)),
    };
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("truth.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let leg = Leg {
            remote: "[::ffff:127.0.0.1]:40000".parse().unwrap(),
            local: "127.0.0.1:8080".parse().unwrap(),
            client: None,
        };
        let hit = Hit::now("app-leak-on-rst", None, &leg);
        assert_eq!((hit.remote_address.as_str(), hit.client_port), ("127.0.0.1", 40000));
        let log = TruthLog::append_to(&path).unwrap();
        log.write(&hit).unwrap();
        log.write(&hit).unwrap();
        assert_eq!(read(&path).unwrap(), [hit.clone(), hit]);
    }
}
