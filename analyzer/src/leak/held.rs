//! What grows while the number of connections does not: growth that no load explains.

use crate::leak::trend::{Trend, trend};

/// With at least this share of the most connections there were, a time counts as full.
const FULL: f64 = 0.99;

/// From when until when, in Unix nanoseconds, the connections were longest at their most. `None` if
/// there never were any.
pub(crate) fn full_time(established: &[(i64, f64)]) -> Option<(i64, i64)> {
    let most = established.iter().map(|point| point.1).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let is_full = |point: &(i64, f64)| point.1 >= most * FULL;
    established
        .chunk_by(|a, b| is_full(a) == is_full(b))
        .filter(|stretch| is_full(&stretch[0]))
        .map(|stretch| (stretch[0].0, stretch[stretch.len() - 1].0))
        .max_by_key(|(from, to)| to - from)
}

/// The course of a number in that time.
pub(crate) fn trend_within(points: &[(i64, f64)], (from, to): (i64, i64)) -> Option<Trend> {
    let first = points.partition_point(|point| point.0 < from);
    let end = points.partition_point(|point| point.0 <= to);
    trend(&points[first..end.max(first)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn the_ramp_is_no_growth_and_growth_after_it_is() {
        // 10 s of ramp, 20 s at 1,000 (a reconnect in between does not end it), then nobody.
        let established: Vec<(i64, f64)> = (0..40)
            .map(|second| {
                let open = if second < 30 { (second * 100).min(1000) } else { 0 };
                (second * S, if second == 15 { 995.0 } else { open as f64 })
            })
            .collect();
        let full = full_time(&established).unwrap();
        assert_eq!(full, (10 * S, 29 * S));
        let tasks = |leak: i64| -> Vec<(i64, f64)> {
            established
                .iter()
                .map(|(at, open)| (*at, open * 2.0 + (leak * at / S) as f64))
                .collect()
        };
        let rate = |leak| trend_within(&tasks(leak), full).unwrap().per_minute.unwrap();
        assert!(rate(0).abs() < 1e-9, "{}", rate(0));
        assert!((rate(3) - 180.0).abs() < 1e-6, "{}", rate(3));
        assert_eq!(full_time(&[(0, 0.0), (S, 0.0)]), None);
        assert_eq!(trend_within(&[], full), None);
    }
}
