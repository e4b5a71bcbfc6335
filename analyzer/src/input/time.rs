//! Times as files write them, to Unix nanoseconds.

use std::str::FromStr;
use std::time::UNIX_EPOCH;

/// What a number that is a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    S,
    Ms,
    Us,
    Ns,
}

impl FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "s" => Ok(Unit::S),
            "ms" => Ok(Unit::Ms),
            "us" => Ok(Unit::Us),
            "ns" => Ok(Unit::Ns),
            _ => Err(format!("`{text}` is no unit: expected s, ms, us or ns")),
        }
    }
}

impl Unit {
    pub(crate) fn ns(self) -> f64 {
        match self {
            Unit::S => 1e9,
            Unit::Ms => 1e6,
            Unit::Us => 1e3,
            Unit::Ns => 1.0,
        }
    }

    /// What a Unix time of this size can only count, if it lies between 1973 and 5138.
    fn of_unix_time(number: f64) -> Self {
        match number {
            n if n < 1e11 => Unit::S,
            n if n < 1e14 => Unit::Ms,
            n if n < 1e17 => Unit::Us,
            _ => Unit::Ns,
        }
    }
}

/// A Unix time as number (in `unit`, else told by its size) or as RFC 3339, with any offset.
pub(crate) fn unix_ns(text: &str, unit: Option<Unit>) -> Result<i64, String> {
    let expected = || format!("`{text}` is no time: expected RFC 3339, or a number of Unix time");
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        let unit = unit.unwrap_or_else(|| Unit::of_unix_time(whole as f64));
        return whole.checked_mul(unit.ns() as i64).filter(|ns| *ns >= 0).ok_or_else(expected);
    }
    if let Some((whole, fraction)) = text.split_once('.')
        && let Ok(whole) = whole.parse::<i64>()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        // As a float, a time of today is only good to a quarter of a microsecond.
        let unit = unit.unwrap_or_else(|| Unit::of_unix_time(whole as f64)).ns();
        let share = format!("0.{fraction}").parse::<f64>().map_err(|_| expected())?;
        let ns = whole.checked_mul(unit as i64).filter(|ns| *ns >= 0).ok_or_else(expected)?;
        return ns.checked_add((share * unit).round() as i64).ok_or_else(expected);
    }
    let (local, offset_s) = split_offset(text).ok_or_else(expected)?;
    let at = humantime::parse_rfc3339_weak(local).map_err(|_| expected())?;
    let since = at.duration_since(UNIX_EPOCH).map_err(|_| expected())?;
    let ns = i64::try_from(since.as_nanos()).map_err(|_| expected())?;
    ns.checked_sub(offset_s * 1_000_000_000).ok_or_else(expected)
}

/// `…+02:00` to the time without it, and seconds ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    // The date has two of the signs as well.
    let at = text.rfind(['+', '-']).filter(|at| *at > 10);
    let Some(at) = at else { return Some((text, 0)) };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    Some((&text[..at], if text[at..].starts_with('-') { -seconds } else { seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_dress_are_one_instant() {
        let instant = 1_700_000_000_250_000_000;
        for text in [
            "1700000000250",
            "1700000000.25",
            "1700000000250000",
            "1700000000250000000",
            "2023-11-14T22:13:20.25Z",
            "2023-11-14 22:13:20.250",
            "2023-11-15T00:13:20.250+02:00",
            "2023-11-14T16:43:20.250-05:30",
        ] {
            assert_eq!(unix_ns(text, None), Ok(instant), "{text}");
        }
        assert_eq!(unix_ns("5000", Some(Unit::Ms)), Ok(5_000_000_000));
        for text in ["", "soon", "2023-11-14", "-5", "NaN", "2023-13-14T00:00:00Z", "1e300"] {
            assert!(unix_ns(text, None).is_err(), "{text}");
        }
    }
}
