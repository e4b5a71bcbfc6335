//! One line of the results file: what one client saw of its connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::units::unix_ns;

/// How a client leaves, on request or because the other side did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// A close frame, answered by one.
    CloseFrame,
    /// FIN without a close frame.
    Fin,
    /// RST (`SO_LINGER` 0).
    Rst,
    /// Stays open, but reads and answers nothing any more.
    Silent,
    /// The socket failed for another reason.
    Error,
}

/// Who ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndedBy {
    Client,
    Server,
    /// Neither: the socket itself failed, e.g. timed out.
    Network,
}

/// Times are Unix time in nanoseconds on the client's clock; null is "did not happen".
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// From 0, in order of start.
    pub(crate) connection: u64,
    pub(crate) started_unix_ns: i64,
    /// The TCP connection is established.
    pub(crate) connected_unix_ns: Option<i64>,
    /// The 101 is read and its accept key is right.
    pub(crate) upgraded_unix_ns: Option<i64>,
    pub(crate) closed_unix_ns: Option<i64>,
    pub(crate) local_address: Option<String>,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_address: String,
    pub(crate) remote_port: u16,
    /// `upgraded`, or why not, where a client can know; else `unknown`, and `error` says more.
    pub(crate) outcome: String,
    pub(crate) http_status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    /// Pings sent, and pongs received for them.
    pub(crate) heartbeats_sent: u64,
    pub(crate) heartbeats_answered: u64,
    /// Round trips of echoed messages and of heartbeats.
    pub(crate) rtt_count: u64,
    pub(crate) rtt_min_us: Option<f64>,
    pub(crate) rtt_mean_us: Option<f64>,
    pub(crate) rtt_max_us: Option<f64>,
    /// How many took so many microseconds, to three digits.
    pub(crate) rtt_us: BTreeMap<u64, u64>,
    pub(crate) close_code: Option<u16>,
    pub(crate) ended_by: Option<EndedBy>,
    pub(crate) end: Option<End>,
}

impl Record {
    pub(crate) fn start(connection: u64, remote: SocketAddr) -> Self {
        Record {
            connection,
            started_unix_ns: unix_ns(),
            connected_unix_ns: None,
            upgraded_unix_ns: None,
            closed_unix_ns: None,
            local_address: None,
            local_port: None,
            remote_address: remote.ip().to_canonical().to_string(),
            remote_port: remote.port(),
            outcome: "unknown".to_owned(),
            http_status: None,
            error: None,
            messages_sent: 0,
            messages_received: 0,
            heartbeats_sent: 0,
            heartbeats_answered: 0,
            rtt_count: 0,
            rtt_min_us: None,
            rtt_mean_us: None,
            rtt_max_us: None,
            rtt_us: BTreeMap::new(),
            close_code: None,
            ended_by: None,
            end: None,
        }
    }

    pub(crate) fn set_local(&mut self, local: SocketAddr) {
        self.local_address = Some(local.ip().to_canonical().to_string());
        self.local_port = Some(local.port());
    }

    pub(crate) fn failed(&mut self, outcome: impl Into<String>, error: impl Into<String>) {
        self.outcome = outcome.into();
        self.error = Some(error.into());
    }

    pub(crate) fn ended(&mut self, by: EndedBy, end: End) {
        self.closed_unix_ns = Some(unix_ns());
        self.ended_by = Some(by);
        self.end = Some(end);
    }

    pub(crate) fn add_rtt(&mut self, us: f64) {
        self.rtt_count += 1;
        let mean = self.rtt_mean_us.unwrap_or(0.0);
        let mean = mean + (us - mean) / self.rtt_count as f64;
        let min = self.rtt_min_us.map_or(us, |min| min.min(us));
        let max = self.rtt_max_us.map_or(us, |max| max.max(us));
        self.rtt_min_us = Some(min);
        self.rtt_max_us = Some(max);
        // Rounding of the running mean may leave the range by a last digit.
        self.rtt_mean_us = Some(mean.clamp(min, max));
        *self.rtt_us.entry(three_digits(us)).or_default() += 1;
    }

    /// A usable WebSocket: one that was closed right after the upgrade is none.
    pub(crate) fn upgraded(&self) -> bool {
        self.outcome == "upgraded"
    }

    /// Microseconds from start to TCP established, and from there to upgraded.
    pub(crate) fn connect_us(&self) -> Option<f64> {
        Some((self.connected_unix_ns? - self.started_unix_ns) as f64 / 1e3)
    }

    pub(crate) fn upgrade_us(&self) -> Option<f64> {
        Some((self.upgraded_unix_ns? - self.connected_unix_ns?) as f64 / 1e3)
    }
}

/// To the nearest number of three digits: so a long connection's line stays short.
fn three_digits(us: f64) -> u64 {
    let us = us.round() as u64;
    let unit = 10_u64.pow(us.checked_ilog10().unwrap_or(0).saturating_sub(2));
    us.saturating_add(unit / 2) / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_keep_their_order() {
        let mut record = Record::start(0, "127.0.0.1:1".parse().unwrap());
        for us in [400.0, 0.1, 0.3, 0.3] {
            record.add_rtt(us);
        }
        let (min, mean, max) = (record.rtt_min_us, record.rtt_mean_us, record.rtt_max_us);
        assert_eq!((min, max), (Some(0.1), Some(400.0)));
        assert!((mean.unwrap() - 100.175).abs() < 1e-9);
        assert!(min <= mean && mean <= max);
        assert_eq!(record.rtt_us, BTreeMap::from([(0, 3), (400, 1)]));
    }

    #[test]
    fn three_digits_are_kept() {
        let cases =
            [(0.4, 0), (999.4, 999), (1_004.4, 1_000), (1_005.0, 1_010), (2_997_612.0, 3_000_000)];
        for (us, kept) in cases {
            assert_eq!(three_digits(us), kept, "{us}");
        }
    }

    #[test]
    fn the_line_has_flat_snake_case_names() {
        let mut record = Record::start(7, "[::ffff:127.0.0.1]:3005".parse().unwrap());
        record.ended(EndedBy::Client, End::CloseFrame);
        let line = serde_json::to_value(&record).unwrap();
        assert_eq!(line["remote_address"], "127.0.0.1");
        assert_eq!(line["ended_by"], "client");
        assert_eq!(line["end"], "close_frame");
        assert_eq!(line["rtt_us"], serde_json::json!({}));
        assert_eq!(line["http_status"], serde_json::Value::Null);
    }
}
