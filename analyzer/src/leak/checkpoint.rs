//! The table of checkpoints: a baseline, then the values at even intervals.

use schemars::JsonSchema;
use serde::Serialize;

use crate::leak::source::Series;

/// How much longer than the interval two samples may lie apart.
const LATE: f64 = 1.5;

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Checkpoint {
    /// 0 is the baseline.
    pub(crate) number: usize,
    pub(crate) at_unix_ns: i64,
    pub(crate) minutes: f64,
    pub(crate) values: Vec<Value>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Since the baseline.
    pub(crate) growth: f64,
    pub(crate) per_minute: f64,
}

/// A time in which nothing was polled.
#[derive(Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Gap {
    pub(crate) source: String,
    pub(crate) from_unix_ns: i64,
    pub(crate) to_unix_ns: i64,
}

/// The last value of each series at or before each checkpoint, and not older than an interval.
pub(crate) fn checkpoints(series: &[Series], interval_ns: i64, count: usize) -> Vec<Checkpoint> {
    let starts = series.iter().filter_map(|series| series.points.first());
    let Some(start) = starts.map(|point| point.0).min() else { return Vec::new() };
    let late_ns = (interval_ns as f64 * LATE) as i64;
    (0..=count)
        .map(|number| {
            let at = start + interval_ns * number as i64;
            let minutes = (at - start) as f64 / 60e9;
            let values = series
                .iter()
                .filter_map(|series| {
                    let baseline = series.points.first()?;
                    // The baseline's own samples may lie a little after the first of all.
                    let upto = if number == 0 { baseline.0 } else { at };
                    let end = series.points.partition_point(|point| point.0 <= upto);
                    let found = series.points[..end].last()?;
                    if at - found.0 > late_ns {
                        return None;
                    }
                    let growth = found.1 - baseline.1;
                    Some(Value {
                        name: series.name.clone(),
                        value: found.1,
                        growth,
                        per_minute: if minutes > 0.0 { growth / minutes } else { 0.0 },
                    })
                })
                .collect();
            Checkpoint { number, at_unix_ns: at, minutes, values }
        })
        .filter(|checkpoint| !checkpoint.values.is_empty())
        .collect()
}

/// Times longer than one and a half intervals without a sample, of series that are polled. Several
/// series of one page share theirs.
pub(crate) fn gaps(series: &[Series], interval_ns: i64) -> Vec<Gap> {
    let late_ns = (interval_ns as f64 * LATE) as i64;
    let mut gaps: Vec<Gap> = Vec::new();
    for series in series.iter().filter(|series| series.polled) {
        let page = series.source.split(' ').next().unwrap_or_default().to_owned();
        for pair in series.points.windows(2) {
            let gap = Gap { source: page.clone(), from_unix_ns: pair[0].0, to_unix_ns: pair[1].0 };
            if gap.to_unix_ns - gap.from_unix_ns > late_ns && !gaps.contains(&gap) {
                gaps.push(gap);
            }
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn series(points: Vec<(i64, f64)>) -> Series {
        Series {
            name: "goroutines".to_owned(),
            source: "http://h/metrics go_goroutines".to_owned(),
            points,
            polled: true,
        }
    }

    #[test]
    fn a_checkpoint_every_two_minutes() {
        let points = (0..=60).map(|n| (n * MINUTE / 2, 12.0 + n as f64)).collect();
        let found = checkpoints(&[series(points)], 2 * MINUTE, 15);
        assert_eq!(found.len(), 16);
        let third = &found[3];
        assert_eq!((third.number, third.minutes), (3, 6.0));
        let value = &third.values[0];
        assert_eq!((value.value, value.growth, value.per_minute), (24.0, 12.0, 2.0));
    }

    #[test]
    fn gaps_are_listed_and_leave_no_stale_checkpoint() {
        let points = vec![(0, 1.0), (MINUTE, 1.0), (9 * MINUTE, 2.0), (10 * MINUTE, 2.0)];
        let one = [series(points)];
        let found = gaps(&one, 2 * MINUTE);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].from_unix_ns, found[0].to_unix_ns), (MINUTE, 9 * MINUTE));
        assert_eq!(found[0].source, "http://h/metrics");
        let numbers: Vec<_> =
            checkpoints(&one, 2 * MINUTE, 5).iter().map(|found| found.number).collect();
        assert_eq!(numbers, [0, 1, 2, 5]);
    }
}
