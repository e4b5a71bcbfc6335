//! The server's metrics page in a block.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::health::{metrics::Series, request::Failure};

/// One look at the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Metrics {
    /// By name, with its labels in braces where it has any; null where it is no number.
    pub(crate) values: BTreeMap<String, f64>,
    /// Why there are none.
    pub(crate) error: Option<String>,
}

impl Metrics {
    pub(crate) fn new(answer: Result<Vec<Series>, Failure>) -> Self {
        match answer {
            Ok(all) => Self { values: all.into_iter().map(named).collect(), error: None },
            Err(failure) => Self { error: Some(failure.to_string()), ..Self::default() },
        }
    }
}

fn named(series: Series) -> (String, f64) {
    let name = match series.labels {
        Some(labels) => format!("{}{{{labels}}}", series.name),
        None => series.name,
    };
    (name, series.value)
}

/// A line per metric would bury the rest; bytes are given in MB.
pub(crate) fn line(metrics: &Metrics) -> String {
    if let Some(error) = &metrics.error {
        return format!("metrics: unavailable ({error})");
    }
    let parts: Vec<String> = metrics
        .values
        .iter()
        .map(|(name, value)| match name.strip_suffix("_bytes") {
            Some(name) => format!("{name} {:.1} MB", value / 1024.0 / 1024.0),
            None => format!("{name} {value}"),
        })
        .collect();
    parts.join("   ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_a_line() {
        let series = |name: &str, labels: Option<&str>, value| Series {
            name: name.into(),
            labels: labels.map(Into::into),
            value,
        };
        let metrics = Metrics::new(Ok(vec![
            series("process_open_fds", None, 42.0),
            series("process_resident_memory_bytes", None, 1_572_864.0),
            series("open", Some("pool=\"a\""), 3.0),
        ]));
        assert_eq!(
            line(&metrics),
            "open{pool=\"a\"} 3   process_open_fds 42   process_resident_memory 1.5 MB"
        );
        let failed = Metrics::new(Err(Failure::Status(404)));
        assert_eq!(line(&failed), "metrics: unavailable (status 404)");
    }
}
