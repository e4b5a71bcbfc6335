//! Where a number stands in a JSON body: `.checks.capacity.current`, `.shards[0].connections`.

use std::{collections::BTreeMap, str::FromStr};

use capture::reader::MOST;
use serde_json::Value;

use crate::printable::word;

/// A path into JSON, as jq writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Of all paths of one body's numbers together.
const ROOM: usize = 4 << 20;

/// Why there is no number at a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("the body has no field {path}; {near}")]
    Missing { path: String, near: String },
    #[error("{path} is {found}, expected a whole number; {near}")]
    NotANumber { path: String, found: &'static str, near: String },
    #[error("the paths of the body's numbers take more than {} MiB", ROOM >> 20)]
    TooMany,
}

impl FieldPath {
    /// What stands at this path.
    pub(crate) fn find<'b>(&self, body: &'b Value) -> Option<&'b Value> {
        self.steps.iter().try_fold(body, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }

    /// The whole number at this path.
    pub(crate) fn number(&self, body: &Value) -> Result<i64, FieldError> {
        let value = self.find(body).ok_or_else(|| FieldError::Missing {
            path: self.text.clone(),
            near: self.near(body),
        })?;
        whole(value).ok_or_else(|| FieldError::NotANumber {
            path: self.text.clone(),
            found: kind(value),
            near: self.near(body),
        })
    }

    /// The numbers that the body does have, those that look most like this path first.
    fn near(&self, body: &Value) -> String {
        let wanted: Vec<&str> = segments(&self.text).collect();
        let Ok(numbers) = numbers(body) else { return FieldError::TooMany.to_string() };
        let mut paths: Vec<String> = numbers.into_keys().map(|path| word(&path)).collect();
        if paths.is_empty() {
            return "it has no numbers at all".into();
        }
        paths.sort_by_key(|path| {
            std::cmp::Reverse(segments(path).filter(|part| wanted.contains(part)).count())
        });
        let more = if paths.len() > 6 { ", …" } else { "" };
        paths.truncate(6);
        format!("it has numbers at {}{more} (choose with --reported)", paths.join(", "))
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|part| !part.is_empty())
}

/// Where there are more than there can be, there is no count: sums of such would overflow.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    let number = value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0).then_some(number as i64)
    });
    number.filter(|number| number.unsigned_abs() <= MOST)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction, or beyond any count",
        Value::Number(_) => "a number beyond any count",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Every number of a body with its path; true and false as 1 and 0.
///
/// # Errors
/// [`FieldError::TooMany`]: a path may be as long as the body, and every number has one.
pub(crate) fn numbers(body: &Value) -> Result<BTreeMap<String, f64>, FieldError> {
    let mut found = Found { numbers: BTreeMap::new(), room: ROOM };
    found.collect(body, &mut String::new())?;
    Ok(found.numbers)
}

struct Found {
    numbers: BTreeMap<String, f64>,
    room: usize,
}

impl Found {
    fn collect(&mut self, value: &Value, path: &mut String) -> Result<(), FieldError> {
        let length = path.len();
        match value {
            Value::Number(number) => {
                number.as_f64().map_or(Ok(()), |number| self.leaf(path, number))?;
            }
            Value::Bool(flag) => self.leaf(path, f64::from(u8::from(*flag)))?,
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.collect(item, path)?;
                    path.truncate(length);
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    path.push('.');
                    path.push_str(key);
                    self.collect(field, path)?;
                    path.truncate(length);
                }
            }
            Value::Null | Value::String(_) => {}
        }
        Ok(())
    }

    fn leaf(&mut self, path: &str, number: f64) -> Result<(), FieldError> {
        let path = if path.is_empty() { "." } else { path };
        self.room = self.room.checked_sub(path.len()).ok_or(FieldError::TooMany)?;
        self.numbers.insert(path.to_owned(), number);
        Ok(())
    }
}

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is no field path: expected one like .checks.capacity.current or .shards[0].connections"
            )
        };
        let mut steps = Vec::new();
        let mut rest = text;
        if !rest.starts_with(['.', '[']) {
            return Err(expected());
        }
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (index, after) = inside.split_once(']').ok_or_else(expected)?;
                steps.push(Step::Index(index.parse().map_err(|_| expected())?));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                // A lone `.` is the body itself.
                if end > 0 {
                    steps.push(Step::Key(after[..end].to_owned()));
                } else if text != "." && !after.starts_with('[') {
                    return Err(expected());
                }
                rest = &after[end..];
            } else {
                return Err(expected());
            }
        }
        Ok(Self { text: text.to_owned(), steps })
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(path: &str, body: &Value) -> Result<i64, FieldError> {
        path.parse::<FieldPath>().unwrap().number(body)
    }

    #[test]
    fn numbers_are_found() {
        let body =
            json!({"checks": {"capacity": {"current": 997}}, "shards": [{"n": 2.0}, {"n": -3}]});
        assert_eq!(at(".checks.capacity.current", &body), Ok(997));
        assert_eq!(at(".shards[0].n", &body), Ok(2));
        assert_eq!(at(".shards[1].n", &body), Ok(-3));
        assert_eq!(at(".", &json!(23)), Ok(23));
        assert_eq!(at("[1]", &json!([1, 2])), Ok(2));
    }

    #[test]
    fn what_is_missing_names_its_neighbours() {
        let body = json!({"checks": {"capacity": {"used": 5, "max": 10}}, "uptime": 3});
        assert_eq!(
            at(".checks.capacity.current", &body).unwrap_err().to_string(),
            "the body has no field .checks.capacity.current; it has numbers at \
             .checks.capacity.max, .checks.capacity.used, .uptime (choose with --reported)"
        );
        assert_eq!(
            at(".status", &json!({"status": "ok"})).unwrap_err().to_string(),
            ".status is a string, expected a whole number; it has no numbers at all"
        );
        assert!(at(".n", &json!({"n": 1.5})).unwrap_err().to_string().contains("a fraction"));
        for number in [json!(i64::MAX), json!(i64::MIN), json!(u64::MAX), json!(1e300)] {
            let refused = at(".n", &json!({"n": number})).unwrap_err().to_string();
            assert!(refused.contains("beyond any count, expected a whole number"), "{refused}");
        }
    }

    #[test]
    fn every_number_is_kept_with_its_path() {
        let body = json!({"healthy": true, "a": [{"b": 1}, {"b": 2.5}], "s": "x", "n": null});
        let expected = [(".a[0].b", 1.0), (".a[1].b", 2.5), (".healthy", 1.0)];
        assert_eq!(numbers(&body), Ok(expected.map(|(path, n)| (path.to_owned(), n)).into()));
    }

    #[test]
    fn what_would_fill_the_memory_is_refused() {
        let items = vec![1; 1000];
        let long = json!({"n": 3, "x".repeat(ROOM / 1000 - 7): items});
        assert_eq!(numbers(&long).map(|numbers| numbers.len()), Ok(1001));
        let longer = json!({"n": 3, "x".repeat(ROOM / 1000): items});
        assert_eq!(numbers(&longer), Err(FieldError::TooMany));
        // What was asked for is no less there.
        assert_eq!(at(".n", &longer), Ok(3));
        assert!(at(".m", &longer).unwrap_err().to_string().ends_with("take more than 4 MiB"));
    }

    #[test]
    fn no_name_in_a_body_steers_a_terminal() {
        let body = json!({"a\u{1b}[31m": 1});
        assert!(at(".n", &body).unwrap_err().to_string().contains(".a\u{fffd}[31m"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "a.b", ".a..b", ".a[x]", ".a[1", ".a[0]b"] {
            assert!(text.parse::<FieldPath>().is_err(), "{text}");
        }
    }
}
