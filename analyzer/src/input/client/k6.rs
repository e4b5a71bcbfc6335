//! Points of k6, as `--out json` and `--out csv` write them: a line per measurement, in any order.

use std::path::Path;

use serde::Deserialize;

use super::{ClientResults, grow};
use crate::error::InputError;
use crate::input::text::{each_line, each_row, json_why};
use crate::input::time::unix_ns;

#[derive(Debug, Deserialize)]
struct Line {
    r#type: String,
    metric: String,
    data: Data,
}

/// Of a point; what a metric's own line says is passed over.
#[derive(Debug, Deserialize)]
struct Data {
    time: Option<String>,
    value: Option<f64>,
    #[serde(default)]
    tags: Tags,
}

#[derive(Debug, Default, Deserialize)]
struct Tags {
    status: Option<String>,
    error: Option<String>,
    error_code: Option<String>,
    expected_response: Option<String>,
}

/// Sums over the points of one file. A script may use WebSockets, plain HTTP, or both; where it has
/// WebSockets, these are what is attempted.
#[derive(Debug, Default)]
struct Sums {
    sessions: u64,
    sessions_upgraded: u64,
    requests: u64,
    requests_failed: u64,
    session_errors: Vec<(String, u64)>,
    request_errors: Vec<(String, u64)>,
}

impl Sums {
    fn take(
        &mut self,
        results: &mut ClientResults,
        metric: &str,
        value: f64,
        tags: &Tags,
    ) -> Result<(), String> {
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{metric}: {value} is no measurement"));
        }
        let count = value as u64;
        match metric {
            "ws_sessions" => {
                grow(&mut self.sessions, count);
                match tags.status.as_deref() {
                    Some("101") => grow(&mut self.sessions_upgraded, count),
                    _ => add(&mut self.session_errors, tags.kind(), count),
                }
            }
            "http_reqs" => {
                grow(&mut self.requests, count);
                if tags.expected_response.as_deref() == Some("false") {
                    grow(&mut self.requests_failed, count);
                    add(&mut self.request_errors, tags.kind(), count);
                }
            }
            // Of sessions that were refused as well: they never became a connection.
            "ws_connecting" if tags.status.as_deref() != Some("101") => {}
            "ws_connecting" => results.connect.record_ms(value),
            "ws_ping" | "http_req_duration" => results.round_trip.record_ms(value),
            "ws_msgs_sent" => grow(results.messages_sent.get_or_insert(0), count),
            "ws_msgs_received" => grow(results.messages_received.get_or_insert(0), count),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, results: &mut ClientResults) {
        let (attempted, successful, errors) = if self.sessions > 0 {
            results.attempts_are.insert("WebSocket sessions");
            results.limit(
                "k6: its ws_sessions counts sessions that failed as well; here those with status \
                 101 are the successful ones",
            );
            (self.sessions, self.sessions_upgraded, self.session_errors)
        } else {
            results.attempts_are.insert("HTTP requests");
            (self.requests, self.requests.saturating_sub(self.requests_failed), self.request_errors)
        };
        results.add_attempts(attempted, successful);
        for (kind, count) in errors {
            results.add_error(&kind, count);
        }
        results.limit(
            "k6: it writes no local port, so that its connections cannot be told apart in the capture",
        );
    }
}

impl Tags {
    fn kind(&self) -> String {
        let known = |text: &&String| !text.is_empty() && *text != "0";
        match (self.status.as_ref().filter(known), self.error.as_ref().filter(known)) {
            (Some(status), _) => format!("http_{status}"),
            (None, Some(error)) => error.clone(),
            (None, None) => match self.error_code.as_ref().filter(known) {
                Some(code) => format!("k6 error {code}"),
                None => "no response".to_owned(),
            },
        }
    }
}

fn add(errors: &mut Vec<(String, u64)>, kind: String, count: u64) {
    match errors.iter_mut().find(|(known, _)| *known == kind) {
        Some((_, total)) => grow(total, count),
        None => errors.push((kind, count)),
    }
}

pub(super) fn read_json(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let (mut unreadable, mut sums) = (Vec::new(), Sums::default());
    let lines = each_line(path, &mut unreadable, |text| {
        let line: Line = serde_json::from_slice(text).map_err(|error| json_why(&error))?;
        match line.r#type.as_str() {
            "Metric" => Ok(()),
            "Point" => {
                let time = line.data.time.ok_or("a point without a time")?;
                let value = line.data.value.ok_or("a point without a value")?;
                let at = unix_ns(&time, None)?;
                results.seen_at(at);
                // A session's time is its start; of requests it is the end.
                if line.metric == "ws_sessions" {
                    results.other_start(at);
                }
                sums.take(results, &line.metric, value, &line.data.tags)
            }
            other => Err(format!("type `{other}`: expected Metric or Point")),
        }
    })?;
    results.unreadable.append(&mut unreadable);
    sums.finish(results);
    Ok(lines)
}

pub(super) fn read_csv(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let (mut unreadable, mut sums) = (Vec::new(), Sums::default());
    let rows = each_row(path, &mut unreadable, |row| {
        let at = row.get("timestamp").ok_or("nothing in column timestamp")?;
        let at = unix_ns(at, None)?;
        let metric = row.get("metric_name").ok_or("nothing in column metric_name")?;
        let value = row.number("metric_value")?;
        let tag = |name| row.get(name).map(str::to_owned);
        let tags = Tags {
            status: tag("status"),
            error: tag("error"),
            error_code: tag("error_code"),
            expected_response: tag("expected_response"),
        };
        results.seen_at(at);
        sums.take(results, metric, value, &tags)
    })?;
    results.unreadable.append(&mut unreadable);
    results.limit("k6 csv: its times are whole seconds, so rates over a few seconds are rough");
    sums.finish(results);
    Ok(rows)
}
