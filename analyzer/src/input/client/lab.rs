//! Client results of `lab load`: one JSON object per line and connection.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{ClientConnection, ClientResults, grow};
use crate::error::InputError;
use crate::input::text::{each_line, json_why};

#[derive(Debug, Deserialize)]
struct Line {
    started_unix_ns: i64,
    connected_unix_ns: Option<i64>,
    upgraded_unix_ns: Option<i64>,
    closed_unix_ns: Option<i64>,
    local_address: Option<String>,
    local_port: Option<u16>,
    outcome: String,
    #[serde(default)]
    messages_sent: u64,
    #[serde(default)]
    messages_received: u64,
    #[serde(default)]
    rtt_count: u64,
    rtt_min_us: Option<f64>,
    rtt_mean_us: Option<f64>,
    rtt_max_us: Option<f64>,
    /// How many took so many microseconds; files of earlier versions have none.
    #[serde(default)]
    rtt_us: BTreeMap<u64, u64>,
    ended_by: Option<String>,
    end: Option<String>,
}

pub(super) fn read(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let mut unreadable = Vec::new();
    let lines = each_line(path, &mut unreadable, |text| {
        let line: Line = serde_json::from_slice(text).map_err(|error| json_why(&error))?;
        grow(results.messages_sent.get_or_insert(0), line.messages_sent);
        grow(results.messages_received.get_or_insert(0), line.messages_received);
        if let (Some(min), Some(mean), Some(max)) =
            (line.rtt_min_us, line.rtt_mean_us, line.rtt_max_us)
        {
            let (min_ms, mean_ms, max_ms) = (min / 1e3, mean / 1e3, max / 1e3);
            let counted = line.rtt_us.values().fold(0_u64, |all, count| all.saturating_add(*count));
            if counted == line.rtt_count {
                let times = line.rtt_us.iter().map(|(us, count)| (*us as f64 / 1e3, *count));
                results.round_trip.record_rounded_ms(times, min_ms, mean_ms, max_ms);
            } else {
                results.limit(
                    "lab: percentiles of round trips are of each connection's mean, which is what an \
                     earlier version kept; least, mean and greatest are of every round trip",
                );
                results.round_trip.record_means_ms(line.rtt_count, min_ms, mean_ms, max_ms);
            }
        }
        let connection = ClientConnection {
            started_unix_ns: line.started_unix_ns,
            connected_unix_ns: line.connected_unix_ns,
            upgraded_unix_ns: line.upgraded_unix_ns,
            closed_unix_ns: line.closed_unix_ns,
            local_address: line.local_address.and_then(|text| text.parse().ok()),
            local_port: line.local_port,
            outcome: results.word(&line.outcome),
            messages_sent: line.messages_sent,
            ended_by: line.ended_by.map(|word| results.word(&word)),
            end: line.end.map(|word| results.word(&word)),
            slowest_ms: line.rtt_max_us.map(|us| us / 1e3),
            keeps_pace: true,
        };
        results.add_connection(connection);
        Ok(())
    })?;
    results.unreadable.append(&mut unreadable);
    Ok(lines)
}
