//! When a difference was there, when it grew, and what happened to connections at those times.

use crate::lives::{Ending, Life};
use crate::report::model::{Birth, EndingCount, Episode};
use crate::rule::Case;
use crate::slope::theil_sen;

/// The course of one quantity over the judged samples.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) peak: i64,
    /// What the server reported at the peak.
    pub(crate) reported_at_peak: i64,
    pub(crate) at_end: i64,
    pub(crate) episodes: Vec<Episode>,
    pub(crate) births: Vec<Birth>,
    /// Monotonic interval of each birth, in the same order.
    windows: Vec<(i64, i64)>,
}

impl Course {
    /// `values` has one entry per sample, `None` where it was not judged.
    pub(crate) fn new(case: &Case<'_>, values: &[Option<i64>]) -> Self {
        let mut course = Course::default();
        let mut highest = 0;
        let mut previous_start_ns = None;
        let mut open: Vec<(i64, i64)> = Vec::new();
        let mut growing = false;
        for (sample, value) in case.joined.samples.iter().zip(values) {
            let (Some(value), Some(comparison)) = (*value, sample.comparison()) else { continue };
            if value > course.peak {
                course.peak = value;
                course.reported_at_peak = comparison.reported;
            }
            course.at_end = value;
            if value > 0 {
                open.push((sample.end_ns, value));
            } else {
                course.end_episode(case, &mut open, Some(sample.end_ns));
                highest = 0;
            }
            // Only what exceeds all before in this episode is new; the rest is noise of the join.
            if value > highest {
                let reach_ns = previous_start_ns.unwrap_or(case.recording.meta.started_mono_ns);
                let from_ns = reach_ns - case.joined.settle_ns;
                course.add_birth(
                    growing,
                    (from_ns, sample.end_ns),
                    value - highest,
                    previous_start_ns.is_none(),
                );
                highest = value;
                growing = true;
            } else {
                growing = false;
            }
            previous_start_ns = Some(sample.start_ns);
        }
        course.end_episode(case, &mut open, None);
        for (birth, window) in course.births.iter_mut().zip(&course.windows) {
            birth.from_unix_ns = case.unix_ns(window.0);
            birth.to_unix_ns = case.unix_ns(window.1);
            if !birth.before_first_sample {
                birth.opened = case.joined.lives.opened_between(window.0, window.1);
                birth.ended = tally(case, case.joined.lives.ended_between(window.0, window.1));
            }
        }
        course
    }

    fn end_episode(&mut self, case: &Case<'_>, open: &mut Vec<(i64, i64)>, over_ns: Option<i64>) {
        let points = std::mem::take(open);
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        self.episodes.push(Episode {
            from_unix_ns: case.unix_ns(first.0),
            to_unix_ns: case.unix_ns(over_ns.unwrap_or(last.0)),
            ongoing: over_ns.is_none(),
            peak: points.iter().map(|point| point.1).max().unwrap_or(0),
            growth_per_minute: growth_per_minute(&points),
        });
    }

    /// Growth from sample to sample is one birth.
    fn add_birth(&mut self, growing: bool, window: (i64, i64), count: i64, before: bool) {
        if growing
            && let (Some(birth), Some(last)) = (self.births.last_mut(), self.windows.last_mut())
        {
            birth.count += count;
            last.1 = window.1;
            return;
        }
        // Windows reach back by the settle time; they must not share the connections that ended.
        let from_ns = self.windows.last().map_or(window.0, |last| window.0.max(last.1 + 1));
        self.windows.push((from_ns, window.1));
        self.births.push(Birth {
            from_unix_ns: 0,
            to_unix_ns: 0,
            count,
            before_first_sample: before,
            opened: 0,
            ended: Vec::new(),
        });
    }

    /// How many were born while we looked.
    pub(crate) fn born(&self) -> i64 {
        self.births.iter().filter(|birth| !birth.before_first_sample).map(|birth| birth.count).sum()
    }

    pub(crate) fn born_before(&self) -> i64 {
        self.births.iter().filter(|birth| birth.before_first_sample).map(|birth| birth.count).sum()
    }

    /// Of what was reported at the peak.
    pub(crate) fn percent(&self) -> Option<f64> {
        percent(self.peak, self.reported_at_peak)
    }

    /// Every way in which connections ended at the births: how many then, and how many in all.
    pub(crate) fn endings(&self, case: &Case<'_>) -> Vec<EndingShare> {
        let lives = &case.joined.lives;
        let all = tally(case, lives.ended_between(i64::MIN, i64::MAX));
        let mut shares: Vec<EndingShare> = all
            .into_iter()
            .map(|in_all| {
                let at_births = self.births.iter().flat_map(|birth| &birth.ended);
                let at_births = at_births.filter(|ended| ended.ending == in_all.ending);
                EndingShare {
                    at_births: at_births.map(|ended| ended.count).sum(),
                    in_step: self.in_step(&in_all.ending),
                    in_all: in_all.count,
                    ending: in_all.ending,
                }
            })
            .collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.at_births));
        shares
    }

    /// At each birth exactly as many connections ended this way as were born.
    fn in_step(&self, ending: &Ending) -> bool {
        let seen = self.births.iter().filter(|birth| !birth.before_first_sample);
        self.born() > 0
            && seen.clone().all(|birth| {
                let ended = birth.ended.iter().find(|ended| ended.ending == *ending);
                ended.is_some_and(|ended| ended.count as i64 == birth.count)
            })
    }

    /// Rows of the connections that ended this way at the births.
    pub(crate) fn rows_ended(&self, case: &Case<'_>, ending: Option<&Ending>) -> Vec<u32> {
        let lives = &case.joined.lives;
        self.births
            .iter()
            .zip(&self.windows)
            .filter(|(birth, _)| !birth.before_first_sample)
            .flat_map(|(_, window)| lives.ended_between(window.0, window.1))
            .filter(|life| ending.is_none_or(|ending| lives.ending(life) == ending))
            .map(|life| life.row)
            .collect()
    }
}

#[derive(Debug)]
pub(crate) struct EndingShare {
    pub(crate) ending: Ending,
    pub(crate) at_births: usize,
    pub(crate) in_all: usize,
    pub(crate) in_step: bool,
}

fn tally<'l>(case: &Case<'_>, lives: impl Iterator<Item = &'l Life>) -> Vec<EndingCount> {
    let counts = case.joined.lives.tally(lives);
    let mut tally: Vec<EndingCount> =
        counts.map(|(ending, count)| EndingCount { ending: ending.clone(), count }).collect();
    tally.sort_by_key(|ended| std::cmp::Reverse(ended.count));
    tally
}

pub(crate) fn percent(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

/// Median slope; 0 for a jump that stays, or too few points.
fn growth_per_minute(points: &[(i64, i64)]) -> f64 {
    let points: Vec<(i64, f64)> = points.iter().map(|(at, count)| (*at, *count as f64)).collect();
    theil_sen(&points).map_or(0.0, |slope| slope.per_minute()[0])
}
