//! Whether the server is gone: it ended connections, and refuses new ones. Behind a balancer, which goes on
//! listening, only the first is to be seen.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::record::{End, EndedBy, Record};
use crate::units::unix_ns;

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
        let at = time(self.at_unix_ns);
        format!("at {at} it ended {} open connections, and refused new ones", self.connections)
    }
}

/// Many connections that were cut off together: what a server that dies behind a balancer takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CutOff {
    /// When the first of them ended.
    pub(crate) at_unix_ns: i64,
    pub(crate) connections: u64,
    /// The most that were ever open at one time.
    pub(crate) of_open: u64,
}

impl CutOff {
    /// `None` where fewer than a quarter of those that were ever open at a time ended within a second, each
    /// without a close frame and open for longer than that.
    pub(super) fn find(records: &[Record]) -> Option<Self> {
        let mut cut: Vec<i64> = records.iter().filter_map(cut_ns).collect();
        cut.sort_unstable();
        let together =
            |from: usize| cut[from..].partition_point(|at| *at < cut[from] + TOGETHER_NS);
        // The first of equals: what else ended in that second came after it.
        let first = (0..cut.len()).rev().max_by_key(|from| together(*from))?;
        let (connections, of_open) = (together(first) as u64, most_open(records));
        let at_unix_ns = cut[first];
        (connections * 4 >= of_open).then_some(Self { at_unix_ns, connections, of_open })
    }

    pub(super) fn text(self) -> String {
        format!(
            "at {} {} of {} open connections, within a second and without a close frame: a server behind \
             this address died, or closes what is idle",
            time(self.at_unix_ns),
            self.connections,
            self.of_open
        )
    }
}

fn most_open(records: &[Record]) -> u64 {
    let upgraded = || records.iter().filter(|record| record.upgraded_unix_ns.is_some());
    let opened = upgraded().filter_map(|record| Some((record.upgraded_unix_ns?, 1)));
    let closed = upgraded().filter_map(|record| Some((record.closed_unix_ns?, -1)));
    let mut steps: Vec<(i64, i64)> = opened.chain(closed).collect();
    steps.sort_unstable();
    let mut open = 0;
    let most = steps.into_iter().map(|(_, step)| {
        open += step;
        open
    });
    most.max().unwrap_or(0).unsigned_abs()
}

/// When a connection ended without a close frame that was open for a while, if not by its client.
fn cut_ns(record: &Record) -> Option<i64> {
    let at = lost_ns(record).filter(|_| record.end != Some(End::CloseFrame))?;
    (at - record.upgraded_unix_ns? >= TOGETHER_NS).then_some(at)
}

fn time(unix_ns: i64) -> humantime::Rfc3339Timestamp {
    let since = Duration::from_nanos(unix_ns.unsigned_abs());
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since)
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
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look(at).await;
        }
    }

    /// Looks once more, since connections may end a moment before the listener does, and nothing ends after
    /// the last of them.
    pub(super) async fn take_last(&mut self, records: &[Record]) {
        let Some(at) = records.iter().filter_map(lost_ns).max() else { return };
        if self.seen_unix_ns.is_none() && unix_ns() - at < TOGETHER_NS {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look(at).await;
        }
    }

    async fn look(&mut self, lost_unix_ns: i64) {
        self.looked = Some(Instant::now());
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(self.remote));
        if let Ok(Err(error)) = connecting.await
            && error.kind() == ErrorKind::ConnectionRefused
        {
            self.seen_unix_ns = Some(lost_unix_ns);
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn record(upgraded_s: i64, closed_ms: i64, by: EndedBy, end: End) -> Record {
        let mut record = Record::start(0, "127.0.0.1:80".parse().unwrap());
        record.ended(by, end);
        record.upgraded_unix_ns = Some(upgraded_s * S);
        record.closed_unix_ns = Some(closed_ms * S / 1000);
        record
    }

    /// Of a hundred so many are cut off at 20 s, each so many ms after the one before; the others leave at 60 s.
    fn cut(count: i64, apart_ms: i64, end: End) -> Option<CutOff> {
        let record = |n| match n < count {
            true => record(n / 10, 20_000 + n * apart_ms, EndedBy::Server, end),
            false => record(n / 10, 60_000, EndedBy::Client, End::CloseFrame),
        };
        CutOff::find(&(0..100).map(record).collect::<Vec<_>>())
    }

    #[test]
    fn a_quarter_that_ends_together_is_cut_off() {
        let cut_off = CutOff { at_unix_ns: 20 * S, connections: 25, of_open: 100 };
        assert_eq!(cut(25, 1, End::Rst), Some(cut_off));
        assert_eq!(cut(25, 1, End::Fin), Some(cut_off));
        assert_eq!(cut(24, 1, End::Rst), None);
        // One after another, as by a timeout of each: eleven begin within a second.
        assert_eq!(cut(100, 99, End::Rst), None);
        // Politely.
        assert_eq!(cut(100, 1, End::CloseFrame), None);
        assert_eq!(cut(0, 1, End::Rst), None);
        assert_eq!(CutOff::find(&[]), None);
        // Right after the upgrade.
        let young = record(20, 20_999, EndedBy::Server, End::Fin);
        assert_eq!(CutOff::find(&[young]), None);
    }
}
