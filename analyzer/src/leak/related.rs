//! What a growing number grows with: phantoms, or connections that ended.

/// At least this correlation of the growth in each stretch.
const ENOUGH: f64 = 0.8;

/// So far apart at the most: chance moves what comes one by one within a stretch or two.
const APART: f64 = 0.1;

/// Stretches of time whose growth is compared.
const STRETCHES: i64 = 20;

/// How one number's growth goes with another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Relation {
    /// Growth of the first for each one of the second.
    pub(crate) each: f64,
    pub(crate) alike: Alike,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alike {
    /// Correlation of their growth, stretch by stretch.
    Correlated(f64),
    /// At every time both have come about as far.
    InStep,
    /// Both grow all the time, which many things do that have nothing to do with each other.
    Evenly,
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
    let each = total / of;
    if is_even(&first) && is_even(&second) {
        return Some(Relation { each, alike: Alike::Evenly });
    }
    let alike = match correlation(&first, &second) {
        Some(r) if r >= ENOUGH => Alike::Correlated(r),
        _ if apart(&first, &second) <= APART => Alike::InStep,
        _ => return None,
    };
    Some(Relation { each, alike })
}

/// Pearson's; `None` where one of them does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| f(x - mean_a, y - mean_b)).sum()
    };
    let (var_a, var_b) = (sum(&|x, _| x * x), sum(&|_, y| y * y));
    (var_a > 0.0 && var_b > 0.0).then(|| sum(&|x, y| x * y) / (var_a * var_b).sqrt())
}

/// What share of its whole growth each number is ahead of the other, at the most.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let courses = shares(a).zip(shares(b));
    courses.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn is_even(growth: &[f64]) -> bool {
    apart(growth, &vec![1.0; growth.len()]) <= APART
}

/// The share of the whole growth at the end of each stretch.
fn shares(growth: &[f64]) -> impl Iterator<Item = f64> {
    let total: f64 = growth.iter().sum();
    growth.iter().scan(0.0, move |sum, more| {
        *sum += more;
        Some(*sum / total)
    })
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
        assert!(matches!(found.alike, Alike::Correlated(r) if r > 0.99), "{found:?}");
        // In other stretches.
        let other = series((0..200).map(|n| f64::from((n + 25) / 50 * 20)));
        assert_eq!(relation(&other, &phantoms), None);
        let even = series((0..200).map(f64::from));
        let evenly = Relation { each: 1.0, alike: Alike::Evenly };
        assert_eq!(relation(&even, &even).unwrap(), evenly);
        // One that grows all the time has nothing to do with one that grows now and then.
        assert_eq!(relation(&tasks, &even), None);
        // Ten a second for three quarters of the time, and a leak of every fifth, somewhere within.
        let churn = series((0..200).map(|n| f64::from(n.min(150) * 10)));
        let leak = series((0..200).map(|n| f64::from(n.min(150) * 2 + n.min(150) * 7 % 5)));
        let found = relation(&leak, &churn).unwrap();
        assert!((found.each - 0.2).abs() < 0.01 && found.alike != Alike::Evenly, "{found:?}");
        assert_eq!(relation(&tasks, &series((0..200).map(|_| 3.0))), None);
    }
}
