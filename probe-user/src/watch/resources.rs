//! What a health body says of the server's resources.

use std::{collections::BTreeMap, str::FromStr};

use serde::Serialize;

use super::lines::fit;

/// Where the numbers stand; the defaults are the shape that `--help` shows.
#[derive(Clone, Debug)]
pub(crate) struct Paths(BTreeMap<&'static str, String>);

const DEFAULTS: [(&str, &str); 6] = [
    ("max", ".checks.capacity.max"),
    ("cpu", ".checks.cpu.percentage"),
    ("memory", ".checks.memory.used_mb"),
    ("memory-limit", ".checks.memory.limit_mb"),
    ("goroutines", ".checks.goroutines.current"),
    ("goroutines-limit", ".checks.goroutines.limit"),
];

/// `--field NAME=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldChoice(&'static str, String);

impl FromStr for FieldChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?}: expected NAME=PATH, e.g. memory=.mem.used_mb"))?;
        let (name, _) =
            DEFAULTS.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
                format!(
                    "no field {name:?}: expected one of {}",
                    DEFAULTS.map(|(n, _)| n).join(", ")
                )
            })?;
        path.parse::<crate::health::path::FieldPath>()?;
        Ok(Self(name, path.to_owned()))
    }
}

impl Paths {
    pub(crate) fn new(choices: &[FieldChoice]) -> Self {
        let mut paths: BTreeMap<_, _> =
            DEFAULTS.into_iter().map(|(name, path)| (name, path.to_owned())).collect();
        paths.extend(choices.iter().map(|FieldChoice(name, path)| (*name, path.clone())));
        Self(paths)
    }
}

/// What the body had; what it had not is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Resources {
    pub(crate) max_connections: Option<f64>,
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_used_mb: Option<f64>,
    pub(crate) memory_limit_mb: Option<f64>,
    pub(crate) goroutines: Option<f64>,
    pub(crate) goroutines_limit: Option<f64>,
    /// Growth of memory since the start over growth of the kernel's count; null until both grew.
    pub(crate) bytes_per_connection: Option<f64>,
}

impl Resources {
    pub(crate) fn read(fields: &BTreeMap<String, f64>, paths: &Paths) -> Self {
        let get = |name: &str| paths.0.get(name).and_then(|path| fields.get(path)).copied();
        Self {
            max_connections: get("max"),
            cpu_percent: get("cpu"),
            memory_used_mb: get("memory"),
            memory_limit_mb: get("memory-limit"),
            goroutines: get("goroutines"),
            goroutines_limit: get("goroutines-limit"),
            bytes_per_connection: None,
        }
    }

    /// `first` and `connections_first`: at the start.
    pub(crate) fn set_per_connection(
        &mut self,
        first: &Self,
        connections_first: i64,
        connections: i64,
    ) {
        let memory = self.memory_used_mb.zip(first.memory_used_mb).map(|(now, then)| now - then);
        let more = connections - connections_first;
        self.bytes_per_connection = memory
            .filter(|&memory| memory > 0.0 && more > 0)
            .map(|memory| memory * 1024.0 * 1024.0 / more as f64);
    }

    /// One line for people; empty if the body has none of it.
    pub(crate) fn line(&self) -> String {
        let of =
            |limit: Option<f64>| limit.map_or(String::new(), |limit| format!(" of {limit:.0}"));
        let mut parts = Vec::new();
        if let Some(cpu) = self.cpu_percent {
            parts.push(format!("cpu {cpu:.1} %"));
        }
        if let Some(memory) = self.memory_used_mb {
            parts.push(format!("memory {memory:.1}{} MB", of(self.memory_limit_mb)));
        }
        if let Some(tasks) = self.goroutines {
            parts.push(format!("goroutines {tasks:.0}{}", of(self.goroutines_limit)));
        }
        if let Some(bytes) = self.bytes_per_connection {
            parts.push(format!("{:.1} KB per connection", bytes / 1024.0));
        }
        fit("", parts, "   ", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_shape_is_read() {
        let body = serde_json::json!({"checks": {
            "capacity": {"current": 1000, "max": 5000, "percentage": 20.0},
            "cpu": {"percentage": 12.5}, "memory": {"used_mb": 100.0, "limit_mb": 512, "percentage": 19.5},
            "goroutines": {"current": 2013, "limit": 10000}}});
        let fields = crate::health::path::numbers(&body).unwrap();
        let mut resources = Resources::read(&fields, &Paths::new(&[]));
        let first = Resources { memory_used_mb: Some(50.0), ..Resources::default() };
        resources.set_per_connection(&first, 0, 1024);
        assert_eq!(
            resources.line(),
            "cpu 12.5 %   memory 100.0 of 512 MB   goroutines 2013 of 10000\n50.0 KB per connection"
        );
    }

    #[test]
    fn other_shapes_are_named() {
        let choice: FieldChoice = "memory=.mem".parse().unwrap();
        let fields = BTreeMap::from([(".mem".to_owned(), 7.0)]);
        assert_eq!(Resources::read(&fields, &Paths::new(&[choice])).line(), "memory 7.0 MB");
        assert!("heap=.x".parse::<FieldChoice>().unwrap_err().contains("expected one of max, cpu"));
        assert!("memory".parse::<FieldChoice>().unwrap_err().contains("expected NAME=PATH"));
    }
}
