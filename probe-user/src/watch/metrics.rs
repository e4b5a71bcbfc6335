//! The server's metrics page in a block.

use std::collections::BTreeMap;

use serde::Serialize;

use status_page::Number;

use super::{checkpoint::number, lines::fit};
use crate::health::request::Failure;

/// One look at the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Metrics {
    /// By name, with its labels in braces where it has any; null where it is no number.
    pub(crate) values: BTreeMap<String, f64>,
    /// Why there are none.
    pub(crate) error: Option<String>,
}

impl Metrics {
    /// One page's answer; of what several pages have, the first page's.
    pub(crate) fn add(&mut self, answer: Result<Vec<Number>, Failure>) {
        match answer {
            Ok(all) => {
                for (name, value) in all.into_iter().map(named) {
                    self.values.entry(name).or_insert(value);
                }
            }
            Err(failure) => self.error = Some(failure.to_string()),
        }
    }
}

fn named(series: Number) -> (String, f64) {
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
    let parts = metrics.values.iter().map(|(name, value)| match name.strip_suffix("_bytes") {
        Some(name) => format!("{name} {:.1} MB", value / 1024.0 / 1024.0),
        None => format!("{name} {}", number(*value)),
    });
    fit("", parts, "   ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_a_line() {
        let series = |name: &str, labels: Option<&str>, value| Number {
            name: name.into(),
            labels: labels.map(Into::into),
            value,
            unix_ms: None,
        };
        let mut metrics = Metrics::default();
        metrics.add(Ok(vec![
            series("process_cpu_seconds_total", None, 1.660_259_245_999_999_9),
            series("process_open_fds", None, 42.0),
            series("process_resident_memory_bytes", None, 1_572_864.0),
            series("open", Some("pool=\"a\""), 3.0),
        ]));
        metrics.add(Ok(vec![series("process_open_fds", None, 7.0)]));
        assert_eq!(
            line(&metrics),
            "open{pool=\"a\"} 3   process_cpu_seconds_total 1.7   process_open_fds 42\nprocess_resident_memory 1.5 MB"
        );
        let mut failed = Metrics::default();
        failed.add(Err(Failure::Status(404)));
        assert_eq!(line(&failed), "metrics: unavailable (status 404)");
    }
}
