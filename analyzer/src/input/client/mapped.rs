//! Any CSV or JSON lines, one per connection, whose columns the user names with `--map`.

use std::num::NonZeroU16;
use std::path::Path;
use std::str::FromStr;

use serde_json::Value;

use super::{ClientConnection, ClientResults, grow};
use crate::error::InputError;
use crate::input::text::{each_line, each_row, heading, json_why};
use crate::input::time::{Unit, unix_ns};

/// `time=ts,unit=ms,local_port=port`: which column holds what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnMap {
    time: String,
    unit: Option<Unit>,
    local_address: Option<String>,
    local_port: Option<String>,
    outcome: Option<String>,
    connect_ms: Option<String>,
    round_trip_ms: Option<String>,
    sent: Option<String>,
    received: Option<String>,
    closed: Option<String>,
}

const KEYS: &str = "time, unit, local_address, local_port, outcome, connect_ms, round_trip_ms, \
                    sent, received, closed";

/// What is said of a connection whose outcome was asked for and is not there: a load tool that got no
/// answer has none to write.
const NO_OUTCOME: &str = "no outcome";

/// Words that say that it went well, beside any HTTP status below 400.
const SUCCESS: [&str; 6] = ["upgraded", "ok", "true", "success", "passed", "connected"];

impl FromStr for ColumnMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut map = ColumnMap::default();
        for pair in text.split(',') {
            let (key, column) = pair
                .split_once('=')
                .ok_or_else(|| format!("`{pair}`: expected KEY=COLUMN with KEY one of {KEYS}"))?;
            let column = column.trim().to_owned();
            match key.trim() {
                "time" => map.time = column,
                "unit" => map.unit = Some(column.parse()?),
                "local_address" => map.local_address = Some(column),
                "local_port" => map.local_port = Some(column),
                "outcome" => map.outcome = Some(column),
                "connect_ms" => map.connect_ms = Some(column),
                "round_trip_ms" => map.round_trip_ms = Some(column),
                "sent" => map.sent = Some(column),
                "received" => map.received = Some(column),
                "closed" => map.closed = Some(column),
                other => return Err(format!("no key `{other}`: expected one of {KEYS}")),
            }
        }
        if map.time.is_empty() {
            return Err("time=COLUMN is missing: the start of each connection".to_owned());
        }
        Ok(map)
    }
}

impl ColumnMap {
    /// The columns that are read.
    fn columns(&self) -> impl Iterator<Item = &str> {
        let others = [
            &self.local_address,
            &self.local_port,
            &self.outcome,
            &self.connect_ms,
            &self.round_trip_ms,
            &self.sent,
            &self.received,
            &self.closed,
        ];
        std::iter::once(self.time.as_str()).chain(others.into_iter().flatten().map(String::as_str))
    }

    /// One connection, from whatever finds a cell's text by its column.
    fn take(
        &self,
        results: &mut ClientResults,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        let cell = |column: &Option<String>| column.as_deref().and_then(&get);
        let started = get(&self.time).ok_or_else(|| format!("nothing in {}", self.time))?;
        let started_unix_ns = unix_ns(&started, self.unit)?;
        let closed_unix_ns =
            cell(&self.closed).map(|text| unix_ns(&text, self.unit)).transpose()?;
        let port = |text: String| {
            let port = text.parse::<NonZeroU16>().map(NonZeroU16::get);
            port.map_err(|_| format!("`{text}` is no port: expected 1 to 65535"))
        };
        let number = |text: String| {
            let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
            number.ok_or_else(|| format!("`{text}` is no number from 0 on"))
        };
        let local_port = cell(&self.local_port).map(port).transpose()?;
        let connect_ms = cell(&self.connect_ms).map(number).transpose()?;
        let round_trip_ms = cell(&self.round_trip_ms).map(number).transpose()?;
        let sent = cell(&self.sent).map(number).transpose()?.map(|n| n as u64);
        let received = cell(&self.received).map(number).transpose()?.map(|n| n as u64);
        let unsaid = if self.outcome.is_some() { NO_OUTCOME } else { "upgraded" };
        let outcome = cell(&self.outcome).unwrap_or_else(|| unsaid.to_owned());
        let outcome = if went_well(&outcome) { "upgraded".to_owned() } else { outcome };

        if let Some(ms) = round_trip_ms {
            results.round_trip.record_ms(ms);
        }
        for (total, count) in
            [(&mut results.messages_sent, sent), (&mut results.messages_received, received)]
        {
            if let Some(count) = count {
                grow(total.get_or_insert(0), count);
            }
        }
        let connected = started_unix_ns + connect_ms.map_or(0, |ms| (ms * 1e6) as i64);
        if self.connect_ms.is_none() {
            results.limit("--map: no connect_ms is named, so connect times are not known");
        }
        let upgraded = outcome == "upgraded";
        let outcome = results.word(&outcome);
        results.add_connection(ClientConnection {
            started_unix_ns,
            connected_unix_ns: None,
            upgraded_unix_ns: (upgraded && connect_ms.is_some()).then_some(connected),
            closed_unix_ns,
            local_address: cell(&self.local_address).and_then(|text| text.parse().ok()),
            local_port,
            outcome,
            messages_sent: sent.unwrap_or(0),
            slowest_ms: round_trip_ms,
            ..ClientConnection::default()
        });
        Ok(())
    }
}

fn went_well(outcome: &str) -> bool {
    match outcome.parse::<u16>() {
        Ok(status) => (100..400).contains(&status),
        Err(_) => SUCCESS.iter().any(|word| outcome.eq_ignore_ascii_case(word)),
    }
}

/// A name that is misspelt would count as nothing, and nothing as success.
fn no_column(path: &Path, column: &str, has: &str) -> InputError {
    InputError::NoMappedColumn {
        path: path.to_path_buf(),
        column: column.to_owned(),
        has: has.chars().take(200).collect(),
    }
}

/// By its name, else by the path of names that it is.
fn field<'a>(line: &'a Value, column: &str) -> Option<&'a Value> {
    let nested = || column.split('.').try_fold(line, |value, key| value.get(key));
    line.get(column).or_else(nested)
}

pub(super) fn read_json(
    path: &Path,
    map: &ColumnMap,
    results: &mut ClientResults,
) -> Result<u64, InputError> {
    let (mut unreadable, mut has) = (Vec::new(), None);
    let mut missing: Vec<&str> = map.columns().collect();
    let lines = each_line(path, &mut unreadable, |text| {
        let line: Value = serde_json::from_slice(text).map_err(|error| json_why(&error))?;
        missing.retain(|column| field(&line, column).is_none());
        if has.is_none() {
            let names = line.as_object().into_iter().flat_map(|fields| fields.keys());
            has = Some(names.map(String::as_str).collect::<Vec<_>>().join(", "));
        }
        map.take(results, |column| match field(&line, column)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    })?;
    if let (Some(missing), Some(has)) = (missing.first(), has) {
        return Err(no_column(path, missing, &has));
    }
    results.unreadable.append(&mut unreadable);
    Ok(lines)
}

pub(super) fn read_csv(
    path: &Path,
    map: &ColumnMap,
    results: &mut ClientResults,
) -> Result<u64, InputError> {
    let heading = heading(path)?;
    if let Some(missing) = map.columns().find(|column| !heading.iter().any(|has| has == column)) {
        return Err(no_column(path, missing, &heading.join(", ")));
    }
    let mut unreadable = Vec::new();
    let rows = each_row(path, &mut unreadable, |row| {
        map.take(results, |column| row.get(column).map(str::to_owned))
    })?;
    results.unreadable.append(&mut unreadable);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_names_columns() {
        let map: ColumnMap = "time=ts,unit=ms,local_port=port".parse().unwrap();
        assert_eq!((map.time.as_str(), map.unit), ("ts", Some(Unit::Ms)));
        assert_eq!(map.local_port.as_deref(), Some("port"));
        let bad = |text: &str| text.parse::<ColumnMap>().unwrap_err();
        assert!(bad("ts").contains("expected KEY=COLUMN"));
        assert!(bad("port=x").contains("no key `port`"));
        assert_eq!(bad("unit=ms"), "time=COLUMN is missing: the start of each connection");
        assert!(bad("time=t,unit=min").contains("expected s, ms, us or ns"));
    }
}
