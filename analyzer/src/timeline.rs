//! A count over time as a step function, and its extremes within an interval.

use std::sync::Arc;

/// How many of a population there were, on the host's monotonic clock. Before the first step the
/// count is `before`.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    before: i64,
    steps: Steps,
}

#[derive(Clone, Debug)]
enum Steps {
    Counted {
        /// When the count changes, ascending, each time once.
        at_ns: Vec<i64>,
        /// The count from that time on.
        count: Vec<i64>,
    },
    /// When one was added, and when one went, each ascending: half the memory where it goes by ones.
    Ends { added_ns: Arc<[i64]>, gone_ns: Arc<[i64]> },
}

impl Timeline {
    /// From changes in any order; those of the same nanosecond become one step.
    pub(crate) fn from_changes(before: i64, mut changes: Vec<(i64, i64)>) -> Self {
        changes.sort_unstable();
        let (mut at_ns, mut counts) = (Vec::new(), Vec::new());
        let mut count = before;
        for (at, change) in changes {
            count += change;
            if at_ns.last() == Some(&at) {
                counts.pop();
            } else {
                at_ns.push(at);
            }
            counts.push(count);
        }
        Self { before, steps: Steps::Counted { at_ns, count: counts } }
    }

    /// From the times at which one was added and those at which one went, each ascending.
    pub(crate) fn from_ends(before: i64, added_ns: Arc<[i64]>, gone_ns: Arc<[i64]>) -> Self {
        Self { before, steps: Steps::Ends { added_ns, gone_ns } }
    }

    /// From when each came, and when it went if it did.
    pub(crate) fn from_spans(spans: impl Iterator<Item = (i64, Option<i64>)>) -> Self {
        let (mut added, mut gone) = (Vec::new(), Vec::new());
        for (from, to) in spans {
            added.push(from);
            gone.extend(to);
        }
        added.sort_unstable();
        gone.sort_unstable();
        Self::from_ends(0, added.into(), gone.into())
    }

    /// The lowest and the highest count at any time from `from_ns` to `to_ns`, both included.
    pub(crate) fn extremes(&self, from_ns: i64, to_ns: i64) -> (i64, i64) {
        let start = self.at(from_ns);
        self.steps_after(from_ns)
            .take_while(|(at_ns, _)| *at_ns <= to_ns)
            .fold((start, start), |(low, high), (_, count)| (low.min(count), high.max(count)))
    }

    /// The count at a time, what happens in that very nanosecond included.
    pub(crate) fn at(&self, at_ns: i64) -> i64 {
        let until = |times: &[i64]| times.partition_point(|time| *time <= at_ns);
        match &self.steps {
            Steps::Counted { at_ns, count } => match until(at_ns) {
                0 => self.before,
                steps => count[steps - 1],
            },
            Steps::Ends { added_ns, gone_ns } => {
                self.before + until(added_ns) as i64 - until(gone_ns) as i64
            }
        }
    }

    /// Every step: time and the count from then on.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.steps_after(i64::MIN)
    }

    /// The highest count after the first step; `None` without any.
    pub(crate) fn peak(&self) -> Option<i64> {
        self.steps().map(|(_, count)| count).max()
    }

    fn steps_after(&self, from_ns: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
        let after = |times: &[i64]| times.partition_point(|time| *time <= from_ns);
        let mut walk = match &self.steps {
            Steps::Counted { at_ns, count } => Walk::Counted { at_ns, count, next: after(at_ns) },
            Steps::Ends { added_ns, gone_ns } => Walk::Ends {
                added: &added_ns[after(added_ns)..],
                gone: &gone_ns[after(gone_ns)..],
                count: self.at(from_ns),
            },
        };
        std::iter::from_fn(move || walk.step())
    }
}

/// A walk over steps.
enum Walk<'a> {
    Counted { at_ns: &'a [i64], count: &'a [i64], next: usize },
    Ends { added: &'a [i64], gone: &'a [i64], count: i64 },
}

impl Walk<'_> {
    #[inline]
    fn step(&mut self) -> Option<(i64, i64)> {
        match self {
            Walk::Counted { at_ns, count, next } => {
                let step = (*at_ns.get(*next)?, count[*next]);
                *next += 1;
                Some(step)
            }
            Walk::Ends { added, gone, count } => {
                let at_ns = match (added.first(), gone.first()) {
                    (Some(added), Some(gone)) => *added.min(gone),
                    (added, gone) => *added.or(gone)?,
                };
                for (times, by) in [(added, 1), (gone, -1)] {
                    while times.first() == Some(&at_ns) {
                        *times = &times[1..];
                        *count += by;
                    }
                }
                Some((at_ns, *count))
            }
        }
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
            let by_changes = Timeline::from_changes(0, changes.collect());
            let sorted = |end: fn(&(i64, i64)) -> i64| -> Arc<[i64]> {
                let mut times: Vec<i64> = lives.iter().map(end).collect();
                times.sort_unstable();
                times.into()
            };
            let by_ends = Timeline::from_ends(0, sorted(|life| life.0), sorted(|life| life.0 + life.1));
            prop_assert_eq!(
                by_ends.steps().collect::<Vec<_>>(),
                by_changes.steps().collect::<Vec<_>>()
            );
            for (from, length) in intervals {
                let counts = (from..=from + length).map(|t| {
                    lives.iter().filter(|(from, length)| *from <= t && t < from + length).count() as i64
                });
                let low = counts.clone().min().unwrap();
                let high = counts.max().unwrap();
                prop_assert_eq!(by_changes.extremes(from, from + length), (low, high));
                prop_assert_eq!(by_ends.extremes(from, from + length), (low, high));
                prop_assert_eq!(by_ends.at(from), by_changes.at(from));
            }
        }
    }
}
