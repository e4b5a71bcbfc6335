//! `--max-phantoms 2%` and its like: a count, or a share.

use std::fmt;
use std::str::FromStr;

use crate::report::model::{Magnitude, Threshold};
use crate::threshold::measure::{Measure, most, percent};
use crate::threshold::state;

/// `20`, or `2%` of what is reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Count(i64),
    Percent(f64),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected a count such as 20, or a share such as 2%, not `{text}`");
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(Limit::Percent(percent)),
                _ => Err(expected()),
            },
            None => match text.parse::<i64>() {
                Ok(count) if count >= 0 => Ok(Limit::Count(count)),
                _ => Err(expected()),
            },
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Count(count) => write!(f, "{count}"),
            Limit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Limit {
    /// The worst of several magnitudes decides. `conclusive` is false where so much could not be
    /// judged that "nothing found" proves nothing; a limit that was crossed stays crossed.
    pub(crate) fn judge(
        self,
        name: &'static str,
        magnitudes: &[Magnitude],
        conclusive: bool,
    ) -> Threshold {
        let measure = match self {
            Limit::Count(_) => most(magnitudes, |found| found.peak.map(|peak| peak as f64), ""),
            Limit::Percent(_) => most(magnitudes, percent, "%"),
        };
        let limit = match self {
            Limit::Count(count) => count as f64,
            Limit::Percent(percent) => percent,
        };
        let complete = conclusive && measure.complete;
        let state = state(&Measure { complete, ..measure }, |value| value <= limit);
        Threshold {
            name: name.to_owned(),
            limit: self.to_string(),
            unit: measure.unit,
            measured: measure.value,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::VerdictState;

    fn peak(peak: i64, percent: f64) -> Magnitude {
        Magnitude { peak: Some(peak), peak_percent: Some(percent), at_end: Some(peak) }
    }

    #[test]
    fn limits_are_counts_or_shares() {
        assert_eq!("20".parse(), Ok(Limit::Count(20)));
        assert_eq!("2.5%".parse(), Ok(Limit::Percent(2.5)));
        for bad in ["-1", "x%", "", "NaN%", "20.5"] {
            assert_eq!(
                bad.parse::<Limit>(),
                Err(format!("expected a count such as 20, or a share such as 2%, not `{bad}`"))
            );
        }
    }

    #[test]
    fn the_worst_decides_and_crossed_stays_crossed() {
        let both = [peak(3, 0.3), peak(45, 4.5)];
        let state =
            |limit: Limit, of: &[Magnitude], conclusive| limit.judge("x", of, conclusive).state;
        assert_eq!(state(Limit::Count(45), &both, true), VerdictState::Held);
        assert_eq!(state(Limit::Count(44), &both, true), VerdictState::Crossed);
        assert_eq!(state(Limit::Percent(4.5), &both, true), VerdictState::Held);
        assert_eq!(state(Limit::Percent(2.0), &both, false), VerdictState::Crossed);
        assert_eq!(state(Limit::Count(45), &both, false), VerdictState::Inconclusive);
        assert_eq!(state(Limit::Count(45), &[], true), VerdictState::Inconclusive);
        let unjudged = [peak(0, 0.0), Magnitude::default()];
        assert_eq!(state(Limit::Count(0), &unjudged, true), VerdictState::Inconclusive);
    }
}
