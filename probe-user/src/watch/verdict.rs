//! How many phantoms are too many, and what is growing.

use std::str::FromStr;

/// A share of what is reported from which a human should look.
pub(crate) const INVESTIGATE_PERCENT: f64 = 10.0;

/// The threshold of `--max-phantoms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaxPhantoms {
    Count(i64),
    /// Of what is reported.
    Percent(f64),
}

impl MaxPhantoms {
    pub(crate) fn is_crossed(self, phantoms: i64, reported: i64) -> bool {
        match self {
            Self::Count(most) => phantoms > most,
            Self::Percent(most) => percent(phantoms, reported) > most,
        }
    }
}

impl std::fmt::Display for MaxPhantoms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(most) => write!(f, "{most}"),
            Self::Percent(most) => write!(f, "{most}%"),
        }
    }
}

impl FromStr for MaxPhantoms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected a number such as 20, or a share such as 2%");
        let parsed = match text.strip_suffix('%') {
            Some(share) => share.trim().parse().map(Self::Percent).map_err(|_| expected())?,
            None => text.parse().map(Self::Count).map_err(|_| expected())?,
        };
        match parsed {
            Self::Count(most) if most < 0 => Err(expected()),
            Self::Percent(most) if !(0.0..=100.0).contains(&most) => Err(expected()),
            parsed => Ok(parsed),
        }
    }
}

/// `part` of `whole` in percent; 0 of nothing.
pub(crate) fn percent(part: i64, whole: i64) -> f64 {
    if whole <= 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Tells growth from noise: a number that rose from block to block, three times in a row.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    last: Option<f64>,
    /// The value before the run of rises.
    from: f64,
    rises: u32,
}

impl Growth {
    const RISES: u32 = 3;
    /// Of where it began; less is what pages of memory and timers do.
    const LEAST: f64 = 0.05;

    /// Takes the next value; returns where the growth began once it is one.
    pub(crate) fn next(&mut self, value: f64) -> Option<f64> {
        match self.last.replace(value) {
            Some(last) if value > last => {
                if self.rises == 0 {
                    self.from = last;
                }
                self.rises += 1;
            }
            _ => self.rises = 0,
        }
        let grown = value - self.from >= Self::LEAST * self.from.abs();
        (self.rises >= Self::RISES && grown).then_some(self.from)
    }

    /// Rises that have another reason, such as more connections, are none.
    pub(crate) fn restart(&mut self, value: f64) {
        *self = Self { last: Some(value), from: value, rises: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_counts_or_shares() {
        let share: MaxPhantoms = "2%".parse().unwrap();
        assert!(!share.is_crossed(20, 1000));
        assert!(share.is_crossed(21, 1000));
        let count: MaxPhantoms = "20".parse().unwrap();
        assert!(!count.is_crossed(20, 20));
        assert!(count.is_crossed(21, 1_000_000));
        let zero: MaxPhantoms = "0%".parse().unwrap();
        assert!(!zero.is_crossed(0, 0) && zero.is_crossed(1, 1000));
        for text in ["", "%", "-1", "101%", "two", "NaN%"] {
            assert!(text.parse::<MaxPhantoms>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_memory_of_a_healthy_server_is_no_growth() {
        let mut growth = Growth::default();
        let told = [11.9, 12.0, 12.1, 12.2, 12.3, 12.4, 12.6].map(|value| growth.next(value));
        assert_eq!(told, [None, None, None, None, None, None, Some(11.9)]);
    }

    #[test]
    fn growth_is_three_rises_in_a_row() {
        let mut growth = Growth::default();
        let told: Vec<Option<f64>> =
            [5.0, 6.0, 7.0, 8.0, 9.0, 9.0, 10.0].map(|value| growth.next(value)).into();
        assert_eq!(told, [None, None, None, Some(5.0), Some(5.0), None, None]);
    }
}
