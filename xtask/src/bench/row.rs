//! One line of the table: what was measured, what the goal is, and what the limit is made of.

use serde::{Deserialize, Serialize};

/// How much worse than its goal a guarded row may be before a quick run fails.
const COLLAPSE: f64 = 3.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Printed beside the others, to judge them by.
    None,
}

/// A figure, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) goal: Goal,
    /// `""` for a ratio, else e.g. `ns`, `MiB`.
    pub(crate) unit: String,
    /// `Err`: why it could not be measured here.
    pub(crate) value: Result<f64, String>,
    /// The confidence interval of the median, where it is one of several.
    pub(crate) interval: Option<(f64, f64)>,
    /// What the figure was made of, e.g. both sides of a ratio.
    pub(crate) detail: String,
    /// What the limit is made of; shown where the goal is missed.
    pub(crate) limit: String,
    /// A quick run fails where this row is worse than a third of its goal. Not for figures that the
    /// machine's load or a build without optimisation change by that much.
    pub(crate) guarded: bool,
}

impl Row {
    pub(crate) fn new(what: &str, goal: Goal, unit: &str, value: f64) -> Self {
        Self {
            what: what.to_owned(),
            goal,
            unit: unit.to_owned(),
            value: Ok(value),
            interval: None,
            detail: String::new(),
            limit: String::new(),
            guarded: false,
        }
    }

    /// A row that this machine can't measure.
    pub(crate) fn absent(what: &str, goal: Goal, why: impl Into<String>) -> Self {
        Self { value: Err(why.into()), ..Self::new(what, goal, "", 0.0) }
    }

    pub(crate) fn interval(mut self, interval: (f64, f64)) -> Self {
        self.interval = Some(interval);
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(crate) fn limit(mut self, limit: &str) -> Self {
        limit.clone_into(&mut self.limit);
        self
    }

    pub(crate) fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// `None` where there is no goal, or no figure.
    pub(crate) fn met(&self) -> Option<bool> {
        self.holds(1.0)
    }

    pub(crate) fn collapsed(&self) -> bool {
        self.guarded && self.holds(COLLAPSE) == Some(false)
    }

    fn holds(&self, slack: f64) -> Option<bool> {
        let value = *self.value.as_ref().ok()?;
        match self.goal {
            Goal::AtLeast(least) => Some(value >= least / slack),
            Goal::AtMost(most) => Some(value <= most * slack),
            Goal::None => None,
        }
    }

    /// What was asked, what came out and how sure it is.
    pub(crate) fn cells(&self) -> [String; 5] {
        let number = |value: f64| number(value, &self.unit);
        let goal = match self.goal {
            Goal::AtLeast(least) => format!("≥ {}", number(least)),
            Goal::AtMost(most) => format!("≤ {}", number(most)),
            Goal::None => String::new(),
        };
        let (value, interval) = match &self.value {
            Ok(value) => (
                number(*value),
                self.interval.map_or(String::new(), |(low, high)| {
                    format!("{} – {}", number(low), number(high))
                }),
            ),
            Err(why) => (format!("not measured: {why}"), String::new()),
        };
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        [self.what.clone(), goal, value, interval, met.to_owned()]
    }
}

/// Three digits that count, and the unit.
fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if unit.is_empty() { text } else { format!("{text} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_missed_or_collapsed() {
        let ratio = |value| Row::new("ratio", Goal::AtLeast(0.9), "", value).guarded();
        assert_eq!((ratio(0.95).met(), ratio(0.95).collapsed()), (Some(true), false));
        assert_eq!((ratio(0.31).met(), ratio(0.31).collapsed()), (Some(false), false));
        assert_eq!((ratio(0.29).met(), ratio(0.29).collapsed()), (Some(false), true));
        let time = Row::new("time", Goal::AtMost(10.0), "ms", 31.0);
        assert_eq!((time.met(), time.collapsed()), (Some(false), false));
        assert!(time.guarded().collapsed());
        let absent = Row::absent("bulk", Goal::AtLeast(0.9), "needs iperf3").guarded();
        assert_eq!((absent.met(), absent.collapsed()), (None, false));
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let shown: Vec<String> =
            [0.0, 0.9714, 2.5, 48.04, 1234.5].iter().map(|value| number(*value, "")).collect();
        assert_eq!(shown, ["0", "0.971", "2.5", "48", "1234"]);
        assert_eq!(number(14.9, "MiB"), "14.9 MiB");
    }
}
