//! Totals of a load client's results, read on as the file grows: JSON lines, one or more per
//! connection, of which the last counts.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    sent: u64,
    received: u64,
    failed: bool,
    open: bool,
}

#[derive(Deserialize)]
struct Raw {
    connection: Option<u64>,
    #[serde(default)]
    messages_sent: u64,
    #[serde(default)]
    messages_received: u64,
    error: Option<String>,
    closed_unix_ns: Option<i64>,
}

/// What the clients say so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) connections: u64,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) errors: u64,
    /// Lines that could not be read.
    pub(crate) unreadable_lines: u64,
    /// Received by connections that the file does not say are closed.
    #[serde(skip)]
    pub(crate) received_by_open: u64,
}

#[derive(Debug)]
pub(crate) struct ClientFile {
    path: PathBuf,
    offset: u64,
    /// The end of what was read: a line that is not whole yet.
    partial: Vec<u8>,
    lines: HashMap<u64, Line>,
    /// Lines without a number are each a connection.
    unnumbered: u64,
    unreadable: u64,
}

impl ClientFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: 0,
            partial: Vec::new(),
            lines: HashMap::new(),
            unnumbered: 0,
            unreadable: 0,
        }
    }

    /// Reads what was added. A file that is not there yet is empty; one that got shorter is read
    /// from its start.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`, but for a missing file.
    pub(crate) fn read_on(&mut self) -> io::Result<Totals> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.totals()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.offset {
            *self = Self::new(&self.path);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.partial)? as u64;
        let bytes = std::mem::take(&mut self.partial);
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.take(line);
        }
        self.partial = bytes[whole..].to_vec();
        Ok(self.totals())
    }

    fn take(&mut self, line: &[u8]) {
        let Ok(raw) = serde_json::from_slice::<Raw>(line) else {
            self.unreadable += 1;
            return;
        };
        let number = raw.connection.unwrap_or_else(|| {
            self.unnumbered += 1;
            u64::MAX - self.unnumbered
        });
        self.lines.insert(
            number,
            Line {
                sent: raw.messages_sent,
                received: raw.messages_received,
                failed: raw.error.is_some(),
                open: raw.closed_unix_ns.is_none() && raw.error.is_none(),
            },
        );
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            connections: self.lines.len() as u64,
            unreadable_lines: self.unreadable,
            ..Totals::default()
        };
        for line in self.lines.values() {
            totals.messages_sent += line.sent;
            totals.messages_received += line.received;
            totals.errors += u64::from(line.failed);
            if line.open {
                totals.received_by_open += line.received;
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_growing_file_is_read_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl");
        let mut results = ClientFile::new(&path);
        assert_eq!(results.read_on().unwrap(), Totals::default());

        let mut file = File::create(&path).unwrap();
        write!(file, "{{\"connection\":0,\"messages_sent\":2,\"messages_received\":1}}\n{{\"conn")
            .unwrap();
        assert_eq!(results.read_on().unwrap().messages_sent, 2);
        write!(file, "ection\":1,\"messages_sent\":5,\"error\":\"reset\"}}\nnonsense\n").unwrap();
        writeln!(file, "{{\"connection\":0,\"messages_sent\":9,\"messages_received\":9}}").unwrap();
        let totals = results.read_on().unwrap();
        assert_eq!(
            totals,
            Totals {
                connections: 2,
                messages_sent: 14,
                messages_received: 9,
                errors: 1,
                unreadable_lines: 1,
                received_by_open: 9,
            }
        );
    }
}
