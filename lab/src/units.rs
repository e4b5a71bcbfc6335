//! Values of the command line: durations, rates, amounts.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since the Unix epoch (`CLOCK_REALTIME`).
pub(crate) fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `90s`, `10m`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: expected a duration such as 500ms, 60s or 10m"))
}

/// A duration; a bare number is milliseconds, as the environment variables of older scripts have it.
pub(crate) fn duration_or_ms(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(_) => duration(text),
    }
}

/// How fast something is started: `100/s`, or everything within `10s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ramp {
    PerSecond(f64),
    Within(Duration),
}

impl Ramp {
    /// When the `index`-th of `total` starts, counted from the start of the first.
    pub(crate) fn offset(self, index: u64, total: u64) -> Duration {
        match self {
            Ramp::PerSecond(rate) => Duration::from_secs_f64(index as f64 / rate),
            Ramp::Within(whole) if total > 0 => whole.mul_f64(index as f64 / total as f64),
            Ramp::Within(_) => Duration::ZERO,
        }
    }
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rate) = text.strip_suffix("/s") else {
            return duration(text).map(Ramp::Within).map_err(|_| ramp_expected(text));
        };
        match rate.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Ramp::PerSecond(rate)),
            _ => Err(ramp_expected(text)),
        }
    }
}

fn ramp_expected(text: &str) -> String {
    format!("`{text}` is no ramp: expected a rate such as 100/s, or a duration such as 10s")
}

/// How many: `1000`, `50k`, `10M`.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| format!("`{text}` is no number: expected one such as 1000, 50k or 10M"))
}

/// How many of those that come by are taken: `45`, `4.5%`, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    All,
    /// The first so many.
    Count(u64),
    /// Evenly spread, in parts per million.
    Share(u64),
}

impl Amount {
    /// Whether the `nth` that comes by (from 0) is taken. A share takes exactly
    /// ⌊share · seen⌋ of those seen so far.
    pub(crate) fn takes(self, nth: u64) -> bool {
        match self {
            Amount::All => true,
            Amount::Count(count) => nth < count,
            Amount::Share(ppm) => (nth + 1) * ppm / 1_000_000 > nth * ppm / 1_000_000,
        }
    }

    /// How many of `total` are taken.
    pub(crate) fn of(self, total: u64) -> u64 {
        match self {
            Amount::All => total,
            Amount::Count(count) => count.min(total),
            Amount::Share(ppm) => total * ppm / 1_000_000,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("`{text}` is no amount: expected a count such as 45, 4.5%, or all");
        if text == "all" {
            return Ok(Amount::All);
        }
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(p) if (0.0..=100.0).contains(&p) => Ok(Amount::Share((p * 1e4).round() as u64)),
                _ => Err(expected()),
            };
        }
        text.parse().map(Amount::Count).map_err(|_| expected())
    }
}

/// `NAME` or `NAME:AMOUNT`.
pub(crate) fn name_and_amount(text: &str) -> Result<(&str, Amount), String> {
    match text.split_once(':') {
        Some((name, amount)) => Ok((name, amount.parse()?)),
        None => Ok((text, Amount::All)),
    }
}

/// A time of a run, `5s-10s`, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

impl Window {
    pub(crate) fn contains(self, since_start: Duration) -> bool {
        (self.from..self.until).contains(&since_start)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no window: expected FROM-UNTIL such as 5s-10s");
        let (from, until) = text.split_once('-').ok_or_else(expected)?;
        let window = Window { from: duration(from)?, until: duration(until)? };
        if window.from < window.until { Ok(window) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_exactly_its_part_evenly() {
        let share: Amount = "4.5%".parse().unwrap();
        let taken: Vec<u64> = (0..1000).filter(|&n| share.takes(n)).collect();
        assert_eq!(taken.len(), 45);
        assert_eq!(share.of(1000), 45);
        assert!(taken.windows(2).all(|pair| (22..=23).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn amounts() {
        assert_eq!("all".parse(), Ok(Amount::All));
        assert_eq!((0..100).filter(|&n| Amount::Count(45).takes(n)).count(), 45);
        assert_eq!(name_and_amount("rst:45"), Ok(("rst", Amount::Count(45))));
        assert_eq!(name_and_amount("rst"), Ok(("rst", Amount::All)));
        assert!("101%".parse::<Amount>().unwrap_err().contains("expected a count"));
    }

    #[test]
    fn counts() {
        assert_eq!(["7", "50k", "10M"].map(count), [Ok(7), Ok(50_000), Ok(10_000_000)]);
        for wrong in ["", "k", "1.5M", "-1", "10G", "99999999999999999M"] {
            assert!(count(wrong).unwrap_err().contains("10M"), "{wrong}");
        }
    }

    #[test]
    fn ramps() {
        let rate: Ramp = "100/s".parse().unwrap();
        assert_eq!(rate.offset(50, 1000), Duration::from_millis(500));
        let within: Ramp = "10s".parse().unwrap();
        assert_eq!(within.offset(50, 100), Duration::from_secs(5));
        assert!("0/s".parse::<Ramp>().is_err());
        assert!("fast".parse::<Ramp>().unwrap_err().contains("100/s"));
    }

    #[test]
    fn windows() {
        let window: Window = "5s-10s".parse().unwrap();
        assert!(window.contains(Duration::from_secs(5)));
        assert!(!window.contains(Duration::from_secs(10)));
        assert!("10s-5s".parse::<Window>().unwrap_err().contains("FROM-UNTIL"));
    }

    #[test]
    fn bare_numbers_are_milliseconds_only_where_asked() {
        assert_eq!(duration_or_ms("5000"), Ok(Duration::from_secs(5)));
        assert_eq!(duration_or_ms("5s"), Ok(Duration::from_secs(5)));
        assert!(duration("5000").is_err());
    }
}
