//! Robust slopes: the median of the slopes between all pairs of points (Theil–Sen), with the interval
//! of Sen (1968) from the variance of Kendall's S, ties included.

/// At most so many points, evenly chosen, are looked at.
const POINTS: usize = 400;

/// Standard deviations of 95 %.
const Z: f64 = 1.96;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slope {
    pub(crate) per_ns: f64,
    /// The true slope lies between these in 95 of 100 series such as this.
    pub(crate) low_per_ns: f64,
    pub(crate) high_per_ns: f64,
}

impl Slope {
    /// The slope and its interval, per minute.
    pub(crate) fn per_minute(self) -> [f64; 3] {
        [self.per_ns, self.low_per_ns, self.high_per_ns].map(|slope| slope * 60e9)
    }
}

/// Of points in order of time; `None` for fewer than two times. One outlier does not move it.
pub(crate) fn theil_sen(points: &[(i64, f64)]) -> Option<Slope> {
    let step = points.len().div_ceil(POINTS).max(1);
    let chosen: Vec<(i64, f64)> = points.iter().copied().step_by(step).collect();
    let mut slopes = Vec::with_capacity(chosen.len() * chosen.len() / 2);
    for (index, (t0, v0)) in chosen.iter().enumerate() {
        for (t1, v1) in &chosen[index + 1..] {
            if t1 > t0 {
                slopes.push((v1 - v0) / (t1 - t0) as f64);
            }
        }
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let pairs = slopes.len();
    let median = f64::midpoint(slopes[(pairs - 1) / 2], slopes[pairs / 2]);
    let reach = Z * variance_of_s(&chosen).sqrt();
    let rank = |rank: f64| slopes[(rank.round().max(0.0) as usize).min(pairs - 1)];
    Some(Slope {
        per_ns: median,
        low_per_ns: rank((pairs as f64 - reach) / 2.0 - 1.0).min(median),
        high_per_ns: rank((pairs as f64 + reach) / 2.0).max(median),
    })
}

fn variance_of_s(points: &[(i64, f64)]) -> f64 {
    let of = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|same| of(same.len() as f64)).sum();
    ((of(points.len() as f64) - ties) / 18.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn per_minute(values: impl Iterator<Item = f64>) -> [f64; 3] {
        let points: Vec<(i64, f64)> = (0..).map(|n| n * S).zip(values).collect();
        theil_sen(&points).unwrap().per_minute()
    }

    #[test]
    fn the_slope_of_a_line_is_its_slope_and_of_a_jump_none() {
        for slope in per_minute((0..1000).map(|n| f64::from(n) * 2.0)) {
            assert!((slope - 120.0).abs() < 1e-6);
        }
        assert_eq!(per_minute((0..100).map(|n| if n < 3 { 0.0 } else { 45.0 }))[0], 0.0);
        assert_eq!(theil_sen(&[(5, 1.0)]), None);
        assert_eq!(theil_sen(&[(5, 1.0), (5, 2.0)]), None);
    }

    #[test]
    fn the_interval_holds_the_true_slope_and_tells_noise_from_growth() {
        // A sawtooth of ±5 around the line, and an outlier.
        let noise = |n: i32| f64::from((n * 7) % 11 - 5) + if n == 30 { 500.0 } else { 0.0 };
        let [slope, low, high] =
            per_minute((0..120).map(|n| f64::from(n) / 60.0 * 12.0 + noise(n)));
        assert!(low <= 12.0 && 12.0 <= high && high - low < 6.0, "{low} {slope} {high}");
        let [slope, low, high] = per_minute((0..120).map(noise));
        assert!(low < 0.0 && 0.0 < high, "{low} {slope} {high}");
    }
}
