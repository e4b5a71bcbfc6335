//! Whether the server is gone: it ended connections, and refuses new ones.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::record::{EndedBy, Record};

/// Each connection that ends would be a reason to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that does not answer at all is not known to be gone.
const PATIENCE: Duration = Duration::from_millis(500);
/// The connections of a process that dies do not end at the same instant.
const TOGETHER_NS: i64 = 1_000_000_000;

/// When the server died, and what that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Death {
    /// When the first connection ended that way.
    pub(crate) at_unix_ns: i64,
    /// How many were open then.
    pub(crate) connections: u64,
}

impl Death {
    pub(super) fn text(self) -> String {
        let at = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + Duration::from_nanos(self.at_unix_ns.unsigned_abs()),
        );
        format!("at {at} it ended {} open connections, and refused new ones", self.connections)
    }
}

#[derive(Debug)]
pub(super) struct DeathWatch {
    remote: SocketAddr,
    looked: Option<Instant>,
    seen_unix_ns: Option<i64>,
}

impl DeathWatch {
    pub(super) fn new(remote: SocketAddr) -> Self {
        Self { remote, looked: None, seen_unix_ns: None }
    }

    /// Looks, if a connection that has ended is a reason to.
    pub(super) async fn take(&mut self, record: &Record) {
        let Some(at) = lost_ns(record).filter(|_| self.seen_unix_ns.is_none()) else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(self.remote));
        if let Ok(Err(error)) = connecting.await
            && error.kind() == ErrorKind::ConnectionRefused
        {
            self.seen_unix_ns = Some(at);
        }
    }

    /// What it came to, by the records of the whole run.
    pub(super) fn death(&self, records: &[Record]) -> Option<Death> {
        let seen = self.seen_unix_ns?;
        let taken = || records.iter().filter_map(lost_ns).filter(|at| *at >= seen - TOGETHER_NS);
        let connections = taken().count() as u64;
        taken().min().map(|at_unix_ns| Death { at_unix_ns, connections })
    }
}

/// When an upgraded connection ended, if not by its client.
fn lost_ns(record: &Record) -> Option<i64> {
    let by_client = record.ended_by.is_none_or(|by| by == EndedBy::Client);
    record.closed_unix_ns.filter(|_| record.upgraded_unix_ns.is_some() && !by_client)
}
