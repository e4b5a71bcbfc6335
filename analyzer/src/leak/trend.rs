//! The course of one number: how fast it grows, and whether it has stopped growing.

use schemars::JsonSchema;
use serde::Serialize;

use crate::slope::theil_sen;

/// Fewer samples tell no slope.
const FEWEST: usize = 4;

/// A later slope below this share of the earlier one is what counts: the earlier was a start, or load that
/// came. Where it may also be zero it is a plateau.
const PLATEAU_SHARE: f64 = 0.25;

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// No slope that chance would not explain.
    Flat,
    /// It grew, and has stopped.
    Plateau,
    /// It grew, and is back where it was.
    Returned,
    Growth,
    Falling,
    /// Too few samples.
    Unknown,
}

impl Shape {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Shape::Flat => "flat",
            Shape::Plateau => "plateau",
            Shape::Returned => "went back",
            Shape::Growth => "growing",
            Shape::Falling => "falling",
            Shape::Unknown => "too few samples",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Trend {
    pub(crate) baseline: f64,
    #[serde(rename = "final")]
    pub(crate) last: f64,
    pub(crate) growth: f64,
    pub(crate) peak: f64,
    /// Over time: each value counts for as long as it took since the one before.
    pub(crate) mean: f64,
    /// Median slope per minute with its 95 % interval: of the whole, or of the second half where that
    /// grew less than a quarter as fast as the first. `None` for too few samples.
    pub(crate) per_minute: Option<f64>,
    pub(crate) low_per_minute: Option<f64>,
    pub(crate) high_per_minute: Option<f64>,
    pub(crate) shape: Shape,
}

/// Of points in order of time; `None` without any.
pub(crate) fn trend(points: &[(i64, f64)]) -> Option<Trend> {
    let (first, last) = (points.first()?, points.last()?);
    let peak = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let mut trend = Trend {
        baseline: first.1,
        last: last.1,
        growth: last.1 - first.1,
        peak,
        mean: mean(points),
        per_minute: None,
        low_per_minute: None,
        high_per_minute: None,
        shape: Shape::Unknown,
    };
    if points.len() < FEWEST {
        return Some(trend);
    }
    let Some(whole) = theil_sen(points).map(|slope| slope.per_minute()) else {
        return Some(trend);
    };
    let middle = first.0 + (last.0 - first.0) / 2;
    let halves = points.split_at(points.partition_point(|point| point.0 <= middle));
    let slope_of = |half: &[(i64, f64)]| theil_sen(half).map(|slope| slope.per_minute());
    let later = slope_of(halves.1);
    let earlier = slope_of(halves.0);
    let slowed = earlier.zip(later).filter(|(earlier, later)| {
        earlier[1] > 0.0 && later[2] >= 0.0 && later[0] < earlier[0] * PLATEAU_SHARE
    });
    let [slope, low, high] = slowed.map_or(whole, |(_, later)| later);
    trend.shape = match slowed {
        Some(_) if low <= 0.0 && last.1 <= first.1 => Shape::Returned,
        Some(_) if low <= 0.0 => Shape::Plateau,
        _ if low > 0.0 => Shape::Growth,
        _ if high < 0.0 => Shape::Falling,
        _ => Shape::Flat,
    };
    trend.per_minute = Some(slope);
    (trend.low_per_minute, trend.high_per_minute) = (Some(low), Some(high));
    Some(trend)
}

fn mean(points: &[(i64, f64)]) -> f64 {
    let (mut sum, mut time) = (0.0, 0.0);
    for pair in points.windows(2) {
        let length = (pair[1].0 - pair[0].0) as f64;
        sum += pair[1].1 * length;
        time += length;
    }
    if time > 0.0 { sum / time } else { points.first().map_or(0.0, |point| point.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn of(values: impl Fn(i64) -> f64) -> Trend {
        let points: Vec<(i64, f64)> = (0..180).map(|n| (n * MINUTE / 6, values(n))).collect();
        trend(&points).unwrap()
    }

    #[test]
    fn growth_plateau_and_noise_are_told_apart() {
        let noise = |n: i64| ((n * 7) % 11 - 5) as f64;
        let growing = of(|n| n as f64 / 6.0 * 12.0 + noise(n));
        assert_eq!(growing.shape, Shape::Growth);
        let (rate, low, high) = (
            growing.per_minute.unwrap(),
            growing.low_per_minute.unwrap(),
            growing.high_per_minute.unwrap(),
        );
        assert!((rate - 12.0).abs() < 0.5 && low <= 12.0 && 12.0 <= high, "{growing:?}");
        let flat = of(|n| 100.0 + noise(n));
        assert_eq!(flat.shape, Shape::Flat);
        // Caches fill within five minutes, and stay full.
        let plateau = of(|n| (n.min(30) * 20) as f64 + noise(n));
        assert_eq!(plateau.shape, Shape::Plateau);
        assert!(plateau.per_minute.unwrap().abs() < 0.5, "{plateau:?}");
        // It came with the clients, and went with them.
        let back = of(|n| 5.0 + (n.min(60) * 10 - (n - 150).max(0) * 30).max(0) as f64);
        assert_eq!((back.shape, back.growth), (Shape::Returned, 0.0));
        // Load comes for five minutes at 120 a minute, and then a leak of 3 a minute goes on.
        let slowed = of(|n| (n.min(30) * 20) as f64 + n as f64 / 2.0);
        assert_eq!(slowed.shape, Shape::Growth);
        assert!((slowed.per_minute.unwrap() - 3.0).abs() < 0.1, "{slowed:?}");
        assert_eq!(of(|n| -(n as f64)).shape, Shape::Falling);
        // A step that stays is neither.
        assert_eq!(of(|n| if n < 20 { 5.0 } else { 25.0 }).shape, Shape::Flat);
    }

    #[test]
    fn too_few_samples_have_no_slope() {
        let few = trend(&[(0, 5.0), (MINUTE, 7.0), (2 * MINUTE, 6.0)]).unwrap();
        assert_eq!((few.shape, few.per_minute), (Shape::Unknown, None));
        assert_eq!((few.baseline, few.last, few.growth, few.peak), (5.0, 6.0, 1.0, 7.0));
        assert_eq!(few.mean, 6.5);
        // 7 for one minute, 6 for three.
        let uneven = trend(&[(0, 5.0), (MINUTE, 7.0), (4 * MINUTE, 6.0)]).unwrap();
        assert_eq!(uneven.mean, 6.25);
        assert_eq!(trend(&[]), None);
    }
}
