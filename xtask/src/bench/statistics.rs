//! Medians, and how far they may be trusted.

/// The median, and an interval that holds the true one in at least 95 of 100 runs, from the order of
/// the values alone: no shape of their distribution is assumed. Of fewer than 6 values no such interval
/// can be told, so it is their whole span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) interval: (f64, f64),
}

impl Median {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) =
            (sorted.get((sorted.len().checked_sub(1)?) / 2)?, sorted[sorted.len() / 2]);
        let outside = ranks_outside(sorted.len());
        Some(Self {
            value: f64::midpoint(*low, high),
            interval: (sorted[outside], sorted[sorted.len() - 1 - outside]),
        })
    }
}

/// How many values lie outside of the interval on each side: as many as keep the chance that the true
/// median lies there too (so many tosses of a coin) below 2.5 %.
fn ranks_outside(values: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(values).unwrap_or(i32::MAX));
    let mut below = 0.0;
    let mut ranks = 0;
    while ranks < values / 2 {
        below += probability;
        if below > 0.025 {
            break;
        }
        probability *= (values - ranks) as f64 / (ranks + 1) as f64;
        ranks += 1;
    }
    ranks.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_15_values_leaves_3_on_each_side() {
        // The 4th and the 12th of 15: textbook ranks, 96.5 %.
        let values: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        assert_eq!(Median::of(&values), Some(Median { value: 8.0, interval: (4.0, 12.0) }));
    }

    #[test]
    fn few_values_span_their_interval() {
        assert_eq!(
            Median::of(&[3.0, 1.0, 2.0, 9.0]),
            Some(Median { value: 2.5, interval: (1.0, 9.0) })
        );
        assert_eq!(Median::of(&[0.97]), Some(Median { value: 0.97, interval: (0.97, 0.97) }));
        assert_eq!(Median::of(&[]), None);
    }
}
