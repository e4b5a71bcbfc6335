//! Artillery's JSON report: totals, and summaries over periods of 10 s. Only the totals are read, so
//! that a long run takes no more memory than a short one.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{ClientResults, grow};
use crate::client::spread::Given;
use crate::error::InputError;
use crate::input::text::{json_why, open};

#[derive(Debug, Deserialize)]
struct Document {
    aggregate: Aggregate,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aggregate {
    counters: BTreeMap<String, f64>,
    #[serde(default)]
    summaries: BTreeMap<String, Summary>,
    first_counter_at: Option<f64>,
    last_counter_at: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    count: f64,
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

/// Round trips by the engines that measure them.
const ROUND_TRIPS: [&str; 3] =
    ["http.response_time", "websocket.response_time", "socketio.response_time"];

pub(super) fn read(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let document: Document =
        serde_json::from_reader(open(path)?).map_err(|error| InputError::NoClientLines {
            path: path.to_path_buf(),
            line: error.line() as u64,
            why: json_why(&error),
            expected: "the report that `artillery run --output` writes".to_owned(),
        })?;
    let aggregate = document.aggregate;
    let count = |name: &str| aggregate.counters.get(name).map_or(0, |count| *count as u64);

    let (created, failed) = (count("vusers.created"), count("vusers.failed"));
    results.attempts_are.insert("virtual users");
    results.add_attempts(created, created.saturating_sub(failed));
    let mut errors = 0;
    for (name, total) in &aggregate.counters {
        if let Some(kind) = name.strip_prefix("errors.") {
            grow(&mut errors, *total as u64);
            results.add_error(kind, *total as u64);
        }
        if name.ends_with("messages_sent") || name.ends_with(".emit") {
            grow(results.messages_sent.get_or_insert(0), *total as u64);
        }
        if name.ends_with("messages_received") {
            grow(results.messages_received.get_or_insert(0), *total as u64);
        }
    }
    if errors > failed {
        results.limits.insert(format!(
            "Artillery: it counted {errors} errors for {failed} users that failed (it counts a \
             refused WebSocket twice); failed is the users, errors by kind are its own counts"
        ));
    }
    for name in ROUND_TRIPS {
        if let Some(summary) = aggregate.summaries.get(name) {
            results.add_given(&format!("Artillery, {name}"), true, summary.given());
        }
    }
    for at_ms in [aggregate.first_counter_at, aggregate.last_counter_at].into_iter().flatten() {
        results.seen_at((at_ms * 1e6) as i64);
    }
    results.limit(
        "Artillery: it writes summaries over 10 s, no connections: connect times, local ports and \
         what happened within 10 s are not in it",
    );
    Ok(1)
}

impl Summary {
    fn given(self) -> Given {
        Given {
            count: self.count as u64,
            min_ms: self.min,
            mean_ms: self.mean,
            p50_ms: self.p50,
            p95_ms: self.p95,
            p99_ms: self.p99,
            max_ms: self.max,
        }
    }
}
