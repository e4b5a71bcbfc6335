//! Client results of `lab load`: one JSON object per line and connection.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::InputError;

/// What one client saw. Times are Unix nanoseconds of the client's clock.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClientConnection {
    pub(crate) started_unix_ns: i64,
    pub(crate) connected_unix_ns: Option<i64>,
    pub(crate) upgraded_unix_ns: Option<i64>,
    pub(crate) closed_unix_ns: Option<i64>,
    pub(crate) local_address: Option<String>,
    pub(crate) local_port: Option<u16>,
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) messages_sent: u64,
    #[serde(default)]
    pub(crate) messages_received: u64,
    pub(crate) ended_by: Option<String>,
    pub(crate) end: Option<String>,
}

/// A line that is no client result.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// Appends what a file holds. A line that cannot be read is set aside (the last one of a client that
/// was killed is often half); a file of nothing but such lines is an error.
pub(crate) fn read(
    path: &Path,
    connections: &mut Vec<ClientConnection>,
    unreadable: &mut Vec<Unreadable>,
) -> Result<(), InputError> {
    let failed = |error| InputError::Read { path: path.to_path_buf(), error };
    let mut input = BufReader::new(File::open(path).map_err(failed)?);
    let (connections_before, unreadable_before) = (connections.len(), unreadable.len());
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        line += 1;
        let text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(connection) => connections.push(connection),
            Err(error) => {
                // serde's own position is that within the line.
                let why = error.to_string();
                let why = why.split(" at line ").next().unwrap_or_default().to_owned();
                unreadable.push(Unreadable { path: path.to_path_buf(), line, why });
            }
        }
    }
    if connections.len() > connections_before {
        return Ok(());
    }
    match unreadable.get(unreadable_before) {
        Some(first) => Err(InputError::NoClientLines {
            path: path.to_path_buf(),
            line: first.line,
            why: first.why.clone(),
        }),
        None => Err(InputError::EmptyClientFile(path.to_path_buf())),
    }
}
