//! Times of one kind: least, mean, percentiles, greatest, in bounded memory.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

/// Collects times. Least, mean and greatest are exact, percentiles to three digits.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// Nanoseconds.
    histogram: Option<Histogram<u64>>,
    measured: Measured,
    /// Sums that tools worked out themselves.
    given: Vec<Given>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    count: u64,
    sum_ms: f64,
    min_ms: f64,
    max_ms: f64,
}

impl Default for Measured {
    fn default() -> Self {
        Measured { count: 0, sum_ms: 0.0, min_ms: f64::INFINITY, max_ms: f64::NEG_INFINITY }
    }
}

/// Figures as a tool gives them, without the times behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub(crate) count: u64,
    pub(crate) min_ms: Option<f64>,
    pub(crate) mean_ms: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

impl Given {
    /// Says it if the mean lies outside least and greatest, as some tools' reports have it.
    pub(crate) fn contradiction(&self) -> Option<String> {
        // Tools round to one digit.
        const ROUNDING_MS: f64 = 0.05;
        let (mean, min, max) = (self.mean_ms?, self.min_ms?, self.max_ms?);
        if mean < min - ROUNDING_MS {
            Some(format!("mean {mean} ms lies below the least, {min} ms"))
        } else if mean > max + ROUNDING_MS {
            Some(format!("mean {mean} ms lies above the greatest, {max} ms"))
        } else {
            None
        }
    }
}

/// A spread as it is reported. Always min ≤ mean ≤ max.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) min_ms: Option<f64>,
    pub(crate) mean_ms: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

impl Spread {
    /// Times below zero come from clocks that were set meanwhile, and are left out.
    pub(crate) fn record_ms(&mut self, ms: f64) {
        self.record_means_ms(1, ms, ms, ms);
    }

    /// `count` times of which only least, mean and greatest are known.
    pub(crate) fn record_means_ms(&mut self, count: u64, min_ms: f64, mean_ms: f64, max_ms: f64) {
        self.record_rounded_ms([(mean_ms, count)], min_ms, mean_ms, max_ms);
    }

    /// How many took so long, as far as times were kept apart; least, mean and greatest are exact.
    pub(crate) fn record_rounded_ms(
        &mut self,
        times: impl IntoIterator<Item = (f64, u64)>,
        min_ms: f64,
        mean_ms: f64,
        max_ms: f64,
    ) {
        let sound = min_ms >= 0.0 && min_ms <= mean_ms && mean_ms <= max_ms && max_ms.is_finite();
        if !sound {
            return;
        }
        let mut count = 0_u64;
        for (ms, times) in times.into_iter().filter(|&(_, times)| times > 0) {
            if self.histogram.is_none() {
                self.histogram = Histogram::new(3).ok();
            }
            // It grows with its values, which fit in 64 bits of nanoseconds for 500 years.
            let recorded = self
                .histogram
                .as_mut()
                .map(|histogram| histogram.record_n(((ms * 1e6) as u64).max(1), times));
            if matches!(recorded, Some(Ok(()))) {
                count = count.saturating_add(times);
            }
        }
        if count == 0 {
            return;
        }
        let measured = &mut self.measured;
        measured.count = measured.count.saturating_add(count);
        measured.sum_ms += mean_ms * count as f64;
        measured.min_ms = measured.min_ms.min(min_ms);
        measured.max_ms = measured.max_ms.max(max_ms);
    }

    /// Takes in the measured times of another.
    pub(crate) fn merge(&mut self, other: &Spread) {
        let Some(more) = &other.histogram else { return };
        let merged = match &mut self.histogram {
            Some(histogram) => histogram.add(more).is_ok(),
            None => {
                self.histogram = Some(more.clone());
                true
            }
        };
        if merged {
            let (measured, more) = (&mut self.measured, other.measured);
            measured.count = measured.count.saturating_add(more.count);
            measured.sum_ms += more.sum_ms;
            measured.min_ms = measured.min_ms.min(more.min_ms);
            measured.max_ms = measured.max_ms.max(more.max_ms);
        }
    }

    pub(crate) fn add_given(&mut self, mut given: Given) {
        if given.contradiction().is_some() {
            given.mean_ms = None;
        }
        if given.count > 0 {
            self.given.push(given);
        }
    }

    /// Percentiles of several sources cannot be joined, and are left out.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let mut parts: Vec<Latency> = self.given.iter().map(|given| given.latency()).collect();
        parts.extend(self.measured_latency());
        match parts.as_slice() {
            [] => None,
            [only] => Some(*only),
            several => {
                let count = several.iter().fold(0_u64, |all, part| all.saturating_add(part.count));
                let weighted: Option<f64> =
                    several.iter().map(|part| Some(part.mean_ms? * part.count as f64)).sum();
                Some(Latency {
                    count,
                    min_ms: several.iter().filter_map(|p| p.min_ms).min_by(f64::total_cmp),
                    mean_ms: weighted.map(|sum| sum / count as f64),
                    p50_ms: None,
                    p95_ms: None,
                    p99_ms: None,
                    max_ms: several.iter().filter_map(|p| p.max_ms).max_by(f64::total_cmp),
                })
            }
        }
    }

    fn measured_latency(&self) -> Option<Latency> {
        let histogram = self.histogram.as_ref()?;
        let Measured { count, sum_ms, min_ms, max_ms } = self.measured;
        // A histogram's value is that of its bucket, which may reach beyond what was measured.
        let at = |quantile: f64| {
            Some((histogram.value_at_quantile(quantile) as f64 / 1e6).clamp(min_ms, max_ms))
        };
        Some(Latency {
            count,
            min_ms: Some(min_ms),
            mean_ms: Some((sum_ms / count as f64).clamp(min_ms, max_ms)),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: Some(max_ms),
        })
    }
}

impl Given {
    fn latency(&self) -> Latency {
        Latency {
            count: self.count,
            min_ms: self.min_ms,
            // Within the rounding of the tool.
            mean_ms: self.mean_ms.map(|mean| {
                let mean = self.min_ms.map_or(mean, |min| mean.max(min));
                self.max_ms.map_or(mean, |max| mean.min(max))
            }),
            p50_ms: self.p50_ms,
            p95_ms: self.p95_ms,
            p99_ms: self.p99_ms,
            max_ms: self.max_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_of_a_known_series() {
        let mut spread = Spread::default();
        for n in 1..=1000 {
            spread.record_ms(f64::from(n));
        }
        let latency = spread.latency().unwrap();
        assert_eq!(
            (latency.count, latency.min_ms, latency.max_ms),
            (1000, Some(1.0), Some(1000.0))
        );
        assert_eq!(latency.mean_ms, Some(500.5));
        for (found, wanted) in
            [(latency.p50_ms, 500.0), (latency.p95_ms, 950.0), (latency.p99_ms, 990.0)]
        {
            let found = found.unwrap();
            assert!((found - wanted).abs() <= wanted * 0.001, "{found} {wanted}");
        }
    }

    #[test]
    fn a_mean_below_the_least_is_not_believed() {
        let given = Given {
            count: 9,
            min_ms: Some(0.4),
            mean_ms: Some(0.0),
            max_ms: Some(3.0),
            ..Given::default()
        };
        assert_eq!(
            given.contradiction().as_deref(),
            Some("mean 0 ms lies below the least, 0.4 ms")
        );
        let mut spread = Spread::default();
        spread.add_given(given);
        assert_eq!(spread.latency().unwrap().mean_ms, None);
    }

    proptest! {
        #[test]
        fn least_mean_and_greatest_keep_their_order(
            times in prop::collection::vec(0.0f64..1e7, 1..200),
            given in prop::collection::vec((0.0f64..9.0, 0.0f64..9.0, 0.0f64..9.0, 1u64..99), 0..3),
        ) {
            let mut spread = Spread::default();
            for ms in times {
                spread.record_ms(ms);
            }
            for (min, mean, max, count) in given {
                spread.add_given(Given {
                    count,
                    min_ms: Some(min),
                    mean_ms: Some(mean),
                    max_ms: Some(max.max(min)),
                    ..Given::default()
                });
            }
            let latency = spread.latency().unwrap();
            if let (Some(min), Some(mean), Some(max)) =
                (latency.min_ms, latency.mean_ms, latency.max_ms)
            {
                prop_assert!(min <= mean && mean <= max, "{latency:?}");
            }
            for percentile in [latency.p50_ms, latency.p95_ms, latency.p99_ms].into_iter().flatten() {
                prop_assert!(latency.min_ms.unwrap() <= percentile);
                prop_assert!(percentile <= latency.max_ms.unwrap());
            }
        }
    }
}
