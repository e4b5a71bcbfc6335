//! Durations in buckets: the few of a classic histogram, and the many of a native one.

use std::{collections::BTreeMap, time::Duration};

/// Upper bounds of the buckets: from loopback to the patience of clients.
pub(crate) const BOUNDS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Native buckets for each doubling are 2 to the power of this: each is 9 % wide.
pub(crate) const SCHEMA: i32 = 3;

/// Durations of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    /// How many are up to each bound and over the one before; the last ones over all bounds.
    pub(crate) buckets: [u64; BOUNDS_SECONDS.len() + 1],
    /// How many are in each native bucket: `i` ends with 2^(i/2^SCHEMA) s and begins behind the end of
    /// the one before.
    pub(crate) fine: BTreeMap<i32, u64>,
    /// Those that took no time at all, which have none.
    pub(crate) zero: u64,
    pub(crate) sum_ns: u64,
}

impl Spread {
    /// Nothing where an end was not seen.
    pub(super) fn observe(&mut self, from_ns: u64, to_ns: u64) {
        if from_ns == 0 || to_ns == 0 {
            return;
        }
        // Packets of both ways are timed on their own: an answer may come before its request is seen.
        let took_ns = to_ns.saturating_sub(from_ns);
        let seconds = Duration::from_nanos(took_ns).as_secs_f64();
        self.buckets[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
        if took_ns == 0 {
            self.zero += 1;
        } else {
            *self.fine.entry(fine(seconds)).or_insert(0) += 1;
        }
        self.sum_ns += took_ns;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
        for (index, more) in &other.fine {
            *self.fine.entry(*index).or_insert(0) += more;
        }
        self.zero += other.zero;
        self.sum_ns += other.sum_ns;
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }
}

/// The native bucket of a duration over 0.
fn fine(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let end = |index: i32| 2f64.powf(f64::from(index) / f64::from(1 << SCHEMA));
        for (seconds, index) in [(1.0, 0), (0.5, -8), (1.000_001, 1), (1.09, 1), (1.091, 2)] {
            assert_eq!(fine(seconds), index, "{seconds}");
        }
        for seconds in [1e-9, 0.000_123, 0.003, 0.71, 12.0, 4_000.0] {
            let index = fine(seconds);
            assert!(end(index - 1) < seconds && seconds <= end(index), "{seconds}: {index}");
        }
    }

    #[test]
    fn every_duration_is_in_one_bucket_of_each_kind() {
        let mut spread = Spread::default();
        for took_ns in [0, 1, 1_500, 1_500_000, 1_500_000, 20_000_000_000] {
            spread.observe(7, 7 + took_ns);
        }
        spread.observe(0, 7);
        let both = spread.clone();
        spread.add(&both);
        assert_eq!((spread.count(), spread.zero), (12, 2));
        assert_eq!(spread.fine.values().sum::<u64>(), 10);
        assert_eq!(spread.sum_ns, 2 * 20_003_001_501);
    }
}
