//! A client's connect time, split into stages by what the kernel saw of the same connection.

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::spread::{Latency, Spread};

/// Unix nanoseconds of the host's clock at which the kernel saw a handshake's steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) syn: Option<i64>,
    pub(crate) established: Option<i64>,
    pub(crate) accepted: Option<i64>,
    pub(crate) request: Option<i64>,
    pub(crate) response: Option<i64>,
}

/// One stage, over all connections that were found on both sides.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Stage {
    pub(crate) stage: &'static str,
    /// Whether it runs from one clock to the other, and so is only as sure as these are aligned.
    pub(crate) across_clocks: bool,
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

const STAGES: [(&str, bool); 6] = [
    ("client starts → SYN received", true),
    ("SYN received → established", false),
    ("established → request received", false),
    ("request received → accepted", false),
    ("accepted → answered", false),
    ("answered → client upgraded", true),
];

#[derive(Debug)]
pub(crate) struct Stages([Spread; STAGES.len()]);

impl Default for Stages {
    fn default() -> Self {
        Stages(std::array::from_fn(|_| Spread::default()))
    }
}

impl Stages {
    /// `started` and `upgraded` by the client, brought to the host's clock; counted only if every step
    /// was seen, so that the means add up to the whole.
    pub(crate) fn add(&mut self, started: i64, steps: &Steps, upgraded: i64) {
        let (Some(syn), Some(established), Some(request), Some(response)) =
            (steps.syn, steps.established, steps.request, steps.response)
        else {
            return;
        };
        // A request may wait in the socket before the server accepts.
        let accepted = steps.accepted.unwrap_or(request).clamp(request, response.max(request));
        let at = [started, syn, established, request, accepted, response, upgraded];
        for (spread, pair) in self.0.iter_mut().zip(at.windows(2)) {
            // Aligned to within the uncertainty, a step may seem to come before its cause.
            spread.record_ms((pair[1] - pair[0]).max(0) as f64 / 1e6);
        }
    }

    pub(crate) fn finish(&self) -> Vec<Stage> {
        let stages = STAGES.iter().zip(&self.0);
        stages
            .filter_map(|((stage, across_clocks), spread)| {
                let latency = spread.latency()?;
                Some(Stage { stage, across_clocks: *across_clocks, latency })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_whole() {
        let mut stages = Stages::default();
        let steps = Steps {
            syn: Some(1_000_000),
            established: Some(2_000_000),
            request: Some(2_500_000),
            accepted: Some(9_000_000),
            response: Some(9_250_000),
        };
        stages.add(0, &steps, 10_000_000);
        stages.add(0, &Steps { syn: None, ..steps }, 10_000_000);
        let means: Vec<f64> =
            stages.finish().iter().filter_map(|stage| stage.latency.mean_ms).collect();
        assert_eq!(means, [1.0, 1.0, 0.5, 6.5, 0.25, 0.75]);
    }
}
