//! Clocks: the host's monotonic one to Unix time, and a client's clock against the host's.

use serde::Serialize;

/// Maps a capture's monotonic times to Unix time by the pairs of its `clock` table.
#[derive(Clone, Debug)]
pub(crate) struct HostClock {
    /// Monotonic and Unix nanoseconds of the same instant, ascending, at least one.
    pairs: Vec<(i64, i64)>,
}

impl HostClock {
    /// `start` is the pair of `meta.json`, for captures that were cut off before their first pair.
    pub(crate) fn new(start: (i64, i64), mut pairs: Vec<(i64, i64)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        if pairs.is_empty() {
            pairs.push(start);
        }
        Self { pairs }
    }

    /// Between two pairs on the line through them, so that steps and slews of Unix time are followed;
    /// outside, by the offset of the nearest.
    pub(crate) fn unix_ns(&self, mono_ns: i64) -> i64 {
        let after = self.pairs.partition_point(|pair| pair.0 <= mono_ns);
        match (after.checked_sub(1).map(|before| self.pairs[before]), self.pairs.get(after)) {
            (Some((m0, u0)), Some((m1, u1))) => {
                let share = i128::from(mono_ns - m0) * i128::from(u1 - u0) / i128::from(m1 - m0);
                u0 + share as i64
            }
            (Some((mono, unix)), None) => unix + (mono_ns - mono),
            (None, Some((mono, unix))) => unix + (mono_ns - mono),
            (None, None) => mono_ns,
        }
    }
}

/// What one matched connection says about the client's clock, all in Unix nanoseconds: the client's
/// own reading before it began, the host's when the connection was made, and the client's once it
/// knew so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockSighting {
    pub(crate) client_before_ns: i64,
    pub(crate) host_ns: i64,
    pub(crate) client_after_ns: i64,
}

/// By how much the client's clock is ahead of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct ClockOffset {
    pub(crate) offset_ns: i64,
    /// The true offset is within this of `offset_ns`.
    pub(crate) uncertainty_ns: i64,
    /// Connections it was told from.
    pub(crate) matched: usize,
    /// Whether all of them agree on one offset; if not, the clocks drift apart or were set, and the
    /// uncertainty covers all of them.
    pub(crate) steady: bool,
}

/// Each sighting bounds the offset from both sides (before < host + offset < after); the truth lies
/// within all of these bounds at once.
pub(crate) fn client_offset(sightings: &[ClockSighting]) -> Option<ClockOffset> {
    let lowest = sightings.iter().map(|s| s.client_before_ns - s.host_ns);
    let highest = sightings.iter().map(|s| s.client_after_ns - s.host_ns);
    let (low, high) = (lowest.clone().max()?, highest.clone().min()?);
    let matched = sightings.len();
    if low <= high {
        let offset_ns = low + (high - low) / 2;
        let uncertainty_ns = high - offset_ns;
        return Some(ClockOffset { offset_ns, uncertainty_ns, matched, steady: true });
    }
    let (low, high) = (lowest.min()?, highest.max()?);
    let offset_ns = low + (high - low) / 2;
    Some(ClockOffset { offset_ns, uncertainty_ns: high - offset_ns, matched, steady: false })
}

/// Unix nanoseconds as `2026-01-31 12:00:31.250` (UTC).
pub(crate) fn utc(unix_ns: i64) -> String {
    let since = std::time::Duration::from_nanos(unix_ns.max(0).unsigned_abs());
    let text = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// The same, only `12:00:31`.
pub(crate) fn utc_time(unix_ns: i64) -> String {
    utc(unix_ns)[11..19].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_follows_a_clock_that_was_set() {
        let clock = HostClock::new((0, 0), vec![(100, 5_100), (0, 1_000), (200, 5_200)]);
        assert_eq!(clock.unix_ns(50), 3_050);
        assert_eq!(clock.unix_ns(150), 5_150);
        assert_eq!(clock.unix_ns(250), 5_250);
        assert_eq!(clock.unix_ns(-10), 990);
        assert_eq!(HostClock::new((7, 107), Vec::new()).unix_ns(9), 109);
    }

    #[test]
    fn an_offset_is_bounded_by_every_connection() {
        let ahead = -3_000_000_000;
        let sightings: Vec<_> = (1..=100)
            .map(|n| ClockSighting {
                client_before_ns: n * 1_000 + ahead - n % 7 - 1,
                host_ns: n * 1_000,
                client_after_ns: n * 1_000 + ahead + n % 5 + 2,
            })
            .collect();
        let offset = client_offset(&sightings).unwrap();
        assert!(offset.steady);
        assert!((offset.offset_ns - ahead).abs() <= offset.uncertainty_ns);
        assert!(offset.uncertainty_ns <= 2);
        assert_eq!(client_offset(&[]), None);
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(utc(1_700_000_000_250_000_000), "2023-11-14 22:13:20.250");
        assert_eq!(utc_time(1_700_000_000_250_000_000), "22:13:20");
    }
}
