//! A count over time as a step function, and its extremes within an interval.

/// How many of a population there were, on the host's monotonic clock. Before the first step the
/// count is `before`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    before: i64,
    /// When the count changes, ascending, each time once.
    at_ns: Vec<i64>,
    /// The count from that time on.
    count: Vec<i64>,
}

impl Timeline {
    /// From changes in any order; those of the same nanosecond become one step.
    pub(crate) fn from_changes(before: i64, mut changes: Vec<(i64, i64)>) -> Self {
        changes.sort_unstable();
        let mut timeline = Self { before, at_ns: Vec::new(), count: Vec::new() };
        let mut count = before;
        for (at_ns, change) in changes {
            count += change;
            match timeline.at_ns.last() {
                Some(last) if *last == at_ns => {
                    let end = timeline.count.len() - 1;
                    timeline.count[end] = count;
                }
                _ => {
                    timeline.at_ns.push(at_ns);
                    timeline.count.push(count);
                }
            }
        }
        timeline
    }

    /// The lowest and the highest count at any time from `from_ns` to `to_ns`, both included.
    pub(crate) fn extremes(&self, from_ns: i64, to_ns: i64) -> (i64, i64) {
        let first = self.at_ns.partition_point(|step| *step <= from_ns);
        let start = if first == 0 { self.before } else { self.count[first - 1] };
        self.at_ns[first..]
            .iter()
            .zip(&self.count[first..])
            .take_while(|(at_ns, _)| **at_ns <= to_ns)
            .fold((start, start), |(low, high), (_, count)| (low.min(*count), high.max(*count)))
    }

    /// Every step: time and the count from then on.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.at_ns.iter().copied().zip(self.count.iter().copied())
    }
}

/// Removes what lasts less than `window` samples in a row and leaves plateaus as they are (a
/// morphological opening): the largest value that held throughout some window around each sample.
/// `None` is passed over; where fewer than `window` samples were judged in all, the window is as long.
pub(crate) fn sustained(values: &[Option<i64>], window: usize) -> Vec<Option<i64>> {
    let judged = values.iter().flatten().count();
    let window = window.min(judged).max(1);
    let mut result: Vec<Option<i64>> = values.iter().map(|value| value.map(|_| 0)).collect();
    let indices: Vec<usize> = (0..values.len()).filter(|i| values[*i].is_some()).collect();
    for span in indices.windows(window) {
        let Some(low) = span.iter().filter_map(|i| values[*i]).min() else { continue };
        for i in span {
            result[*i] = result[*i].map(|value| value.max(low));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_of_one_instant_are_one() {
        let timeline = Timeline::from_changes(3, vec![(20, -1), (10, 1), (20, 1), (20, 1)]);
        assert_eq!(timeline.steps().collect::<Vec<_>>(), [(10, 4), (20, 5)]);
        assert_eq!(timeline.extremes(25, 99), (5, 5));
        assert_eq!(timeline.extremes(0, 9), (3, 3));
        assert_eq!(timeline.extremes(0, 20), (3, 5));
        assert_eq!(timeline.extremes(11, 12), (4, 4));
    }

    #[test]
    fn a_spike_goes_a_plateau_stays() {
        let values = [0, 7, 0, 20, 45, 45, 44, 45, 0].map(Some);
        assert_eq!(sustained(&values, 2), [0, 0, 0, 20, 45, 45, 44, 44, 0].map(Some));
        assert_eq!(sustained(&[Some(45)], 2), [Some(45)]);
        assert_eq!(sustained(&[None, Some(3), None, Some(5)], 2), [None, Some(3), None, Some(3)]);
    }

    proptest! {
        /// Against counting every connection at every instant.
        #[test]
        fn extremes_equal_a_count_at_every_instant(
            lives in prop::collection::vec((0i64..60, 1i64..40), 0..50),
            intervals in prop::collection::vec((0i64..90, 0i64..30), 1..20),
        ) {
            let changes = lives.iter().flat_map(|(from, length)| [(*from, 1), (from + length, -1)]);
            let timeline = Timeline::from_changes(0, changes.collect());
            for (from, length) in intervals {
                let counts = (from..=from + length).map(|t| {
                    lives.iter().filter(|(from, length)| *from <= t && t < from + length).count() as i64
                });
                let low = counts.clone().min().unwrap();
                let high = counts.max().unwrap();
                prop_assert_eq!(timeline.extremes(from, from + length), (low, high));
            }
        }
    }
}
