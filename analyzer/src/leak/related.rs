//! What a growing number grows with: phantoms, or connections that ended.

/// At least this correlation of the growth in each stretch, where it varies at all.
const ALIKE: f64 = 0.8;

/// Stretches of time whose growth is compared.
const STRETCHES: i64 = 20;

/// How one number's growth goes with another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Relation {
    /// Growth of the first for each one of the second.
    pub(crate) each: f64,
    /// Correlation of their growth, stretch by stretch; `None` if one grows evenly.
    pub(crate) correlation: Option<f64>,
}

/// `None` where the second does not grow, or they grow at different times.
pub(crate) fn relation(grows: &[(i64, f64)], with: &[(i64, f64)]) -> Option<Relation> {
    let from = grows.first()?.0.max(with.first()?.0);
    let to = grows.last()?.0.min(with.last()?.0);
    let step = (to - from) / STRETCHES;
    if step <= 0 {
        return None;
    }
    let at = |points: &[(i64, f64)], t: i64| {
        let end = points.partition_point(|point| point.0 <= t);
        points[end.saturating_sub(1)].1
    };
    let growth = |points: &[(i64, f64)]| -> Vec<f64> {
        (0..STRETCHES)
            .map(|n| at(points, from + (n + 1) * step) - at(points, from + n * step))
            .collect()
    };
    let (first, second) = (growth(grows), growth(with));
    let (total, of) = (first.iter().sum::<f64>(), second.iter().sum::<f64>());
    if total <= 0.0 || of <= 0.0 {
        return None;
    }
    let correlation = correlation(&first, &second);
    if correlation.is_some_and(|found| found < ALIKE) {
        return None;
    }
    Some(Relation { each: total / of, correlation })
}

/// Pearson's; `None` where one of them does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| f(x - mean_a, y - mean_b)).sum()
    };
    let (var_a, var_b) = (sum(&|x, _| x * x), sum(&|_, y| y * y));
    // Less than a tenth of the mean's own size is no variation worth a correlation.
    let even = |variance: f64, mean: f64| {
        (variance / a.len() as f64).sqrt() <= 0.1 * mean.abs() || variance <= 0.0
    };
    if even(var_a, mean_a) || even(var_b, mean_b) {
        return None;
    }
    Some(sum(&|x, y| x * y) / (var_a * var_b).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl Iterator<Item = f64>) -> Vec<(i64, f64)> {
        (0..).zip(values).collect()
    }

    #[test]
    fn growth_in_the_same_stretches_is_related() {
        let phantoms = series((0..200).map(|n| f64::from(n / 50 * 10)));
        let tasks = series((0..200).map(|n| 7.0 + f64::from(n / 50 * 20)));
        let found = relation(&tasks, &phantoms).unwrap();
        assert_eq!(found.each, 2.0);
        assert!(found.correlation.unwrap() > 0.99);
        // In other stretches.
        let other = series((0..200).map(|n| f64::from((n + 25) / 50 * 20)));
        assert_eq!(relation(&other, &phantoms), None);
        let even = series((0..200).map(f64::from));
        assert_eq!(relation(&even, &even).unwrap(), Relation { each: 1.0, correlation: None });
        assert_eq!(relation(&tasks, &series((0..200).map(|_| 3.0))), None);
    }
}
