//! Locust's CSV files: `…_stats.csv` has the totals, `…_stats_history.csv` the times,
//! `…_failures.csv` and `…_exceptions.csv` the errors by kind.

use std::path::Path;

use super::ClientResults;
use crate::client::spread::Given;
use crate::error::InputError;
use crate::input::text::{Row, each_row};
use crate::input::time::{Unit, unix_ns};

/// The row that sums up the others.
const TOTAL: &str = "Aggregated";

pub(super) fn read_stats(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let mut unreadable = Vec::new();
    let rows = each_row(path, &mut unreadable, |row| {
        let (requests, failures) = (row.number("Request Count")?, row.number("Failure Count")?);
        if row.get("Name") != Some(TOTAL) {
            return Ok(());
        }
        results.add_attempts(requests as u64, (requests - failures).max(0.0) as u64);
        let given = Given {
            count: requests as u64,
            min_ms: number(row, "Min Response Time"),
            mean_ms: number(row, "Average Response Time"),
            p50_ms: number(row, "50%"),
            p95_ms: number(row, "95%"),
            p99_ms: number(row, "99%"),
            max_ms: number(row, "Max Response Time"),
        };
        results.add_given("Locust, response time", true, given);
        Ok(())
    })?;
    results.unreadable.append(&mut unreadable);
    results.attempts_are.insert("requests");
    results.limit(
        "Locust: it counts requests, not connections, rounds percentiles to whole ms (to two digits \
         from 100 ms on), and writes no local ports",
    );
    Ok(rows)
}

/// `N/A` is nothing.
fn number(row: &Row<'_>, column: &str) -> Option<f64> {
    row.number(column).ok()
}

pub(super) fn read_history(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    let mut unreadable = Vec::new();
    let rows = each_row(path, &mut unreadable, |row| {
        let at = row.get("Timestamp").ok_or("nothing in column Timestamp")?;
        results.seen_at(unix_ns(at, Some(Unit::S))?);
        Ok(())
    })?;
    results.unreadable.append(&mut unreadable);
    results.limit(
        "Locust: its history gives the time of the run; totals are only taken from …_stats.csv",
    );
    Ok(rows)
}

pub(super) fn read_failures(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    read_errors(path, results, "Error", "Occurrences")
}

pub(super) fn read_exceptions(path: &Path, results: &mut ClientResults) -> Result<u64, InputError> {
    read_errors(path, results, "Message", "Count")
}

fn read_errors(
    path: &Path,
    results: &mut ClientResults,
    kind: &str,
    count: &str,
) -> Result<u64, InputError> {
    let mut unreadable = Vec::new();
    let rows = each_row(path, &mut unreadable, |row| {
        let error = row.get(kind).ok_or_else(|| format!("nothing in column {kind}"))?;
        results.add_error(error, row.number(count)? as u64);
        Ok(())
    })?;
    results.unreadable.append(&mut unreadable);
    Ok(rows)
}
