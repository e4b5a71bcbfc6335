//! Clocks: the host's monotonic one to Unix time, and a client's clock against the host's.

use capture::clock::step_ns;
use schemars::JsonSchema;
use serde::Serialize;

use crate::slope;

/// Unix time was set while it was recorded, or the host slept (its monotonic clock stands still then).
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct ClockStep {
    /// When it was noticed, by the time that holds from there on.
    pub(crate) at_unix_ns: i64,
    /// How much before that it may have happened.
    pub(crate) within_ns: i64,
    /// Negative: back.
    pub(crate) by_ns: i64,
}

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

    /// Where Unix time was set. No time of one side of it may be held against one of the other.
    pub(crate) fn steps(&self) -> Vec<ClockStep> {
        let steps = self.pairs.windows(2).filter_map(|pair| {
            let by_ns = step_ns(pair[0], pair[1])?;
            let within_ns = pair[1].0 - pair[0].0;
            Some(ClockStep { at_unix_ns: pair[1].1, within_ns, by_ns })
        });
        steps.collect()
    }

    /// Between two pairs on the line through them, so that slews of Unix time are followed; where it was
    /// set between them, as it was before; outside, by the offset of the nearest.
    pub(crate) fn unix_ns(&self, mono_ns: i64) -> i64 {
        let after = self.pairs.partition_point(|pair| pair.0 <= mono_ns);
        match (after.checked_sub(1).map(|before| self.pairs[before]), self.pairs.get(after)) {
            (Some((m0, u0)), Some(&(m1, u1))) if step_ns((m0, u0), (m1, u1)).is_none() => {
                let share = i128::from(mono_ns - m0) * i128::from(u1 - u0) / i128::from(m1 - m0);
                u0 + share as i64
            }
            (Some((mono, unix)), _) => unix + (mono_ns - mono),
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

/// What an offset was told from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToldBy {
    /// Connections that both sides know by their addresses.
    Connections,
    /// When attempts began, all together.
    Starts,
}

/// By how much the client's clock is ahead of the host's.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct ClockOffset {
    /// At `at_unix_ns` of the host's clock.
    pub(crate) offset_ns: i64,
    pub(crate) at_unix_ns: i64,
    /// By how much the client's clock gains on the host's, in millionths; 0 where one offset explains
    /// every connection.
    pub(crate) drift_ppm: f64,
    /// The true offset is within this of the line through `offset_ns`.
    pub(crate) uncertainty_ns: i64,
    pub(crate) told_by: ToldBy,
    /// Connections or starts it was told from.
    pub(crate) matched: usize,
    /// Whether all of them agree on one offset and drift; if not, the clock was set meanwhile, and the
    /// uncertainty covers all of them.
    pub(crate) steady: bool,
}

impl ClockOffset {
    /// A client's time on the host's clock.
    pub(crate) fn to_host(self, client_unix_ns: i64) -> i64 {
        let since = (client_unix_ns - self.offset_ns - self.at_unix_ns) as f64;
        let gained = since * self.drift_ppm / (1e6 + self.drift_ppm);
        client_unix_ns - self.offset_ns - gained as i64
    }
}

/// Each sighting bounds the offset from both sides (before < host + offset < after); the truth lies
/// within all of these bounds at once. Where no single offset does, a drift is taken off first.
pub(crate) fn client_offset(sightings: &[ClockSighting]) -> Option<ClockOffset> {
    let at_unix_ns = sightings.iter().map(|s| s.host_ns).min()?;
    let matched = sightings.len();
    let told = |drift_ppm: f64, low: i64, high: i64, steady| {
        let offset_ns = low + (high - low) / 2;
        let uncertainty_ns = high - offset_ns;
        let told_by = ToldBy::Connections;
        ClockOffset { offset_ns, at_unix_ns, drift_ppm, uncertainty_ns, told_by, matched, steady }
    };
    let (low, high) = common_bounds(sightings, at_unix_ns, 0.0)?;
    if low <= high {
        return Some(told(0.0, low, high, true));
    }
    let drift_ppm = drift_ppm(sightings, at_unix_ns);
    let (low, high) = common_bounds(sightings, at_unix_ns, drift_ppm)?;
    if low <= high {
        return Some(told(drift_ppm, low, high, true));
    }
    let of = |client_ns: i64, s: &ClockSighting| {
        client_ns - s.host_ns - gained_ns(s.host_ns - at_unix_ns, drift_ppm)
    };
    let lowest = sightings.iter().map(|s| of(s.client_before_ns, s)).min()?;
    let highest = sightings.iter().map(|s| of(s.client_after_ns, s)).max()?;
    // A drift that is off by little leaves bounds that just miss each other.
    let nearly =
        low - high <= sightings.iter().map(|s| s.client_after_ns - s.client_before_ns).max()?;
    Some(told(drift_ppm, lowest, highest, nearly))
}

fn gained_ns(since_ns: i64, drift_ppm: f64) -> i64 {
    (since_ns as f64 * drift_ppm / 1e6) as i64
}

/// The greatest lower and the least upper bound of the offset at `at_unix_ns`.
fn common_bounds(
    sightings: &[ClockSighting],
    at_unix_ns: i64,
    drift_ppm: f64,
) -> Option<(i64, i64)> {
    let bounds = || {
        sightings.iter().map(|s| {
            let expected = s.host_ns + gained_ns(s.host_ns - at_unix_ns, drift_ppm);
            (s.client_before_ns - expected, s.client_after_ns - expected)
        })
    };
    Some((bounds().map(|(low, _)| low).max()?, bounds().map(|(_, high)| high).min()?))
}

/// Median of the slopes between the middles of all bounds, in millionths.
fn drift_ppm(sightings: &[ClockSighting], at_unix_ns: i64) -> f64 {
    let mut points: Vec<(i64, f64)> = sightings
        .iter()
        .map(|s| {
            let middle = s.client_before_ns + (s.client_after_ns - s.client_before_ns) / 2;
            (s.host_ns - at_unix_ns, (middle - s.host_ns) as f64)
        })
        .collect();
    points.sort_unstable_by_key(|point| point.0);
    slope::theil_sen(&points).map_or(0.0, |slope| slope.per_ns * 1e6)
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
    fn unix_time_follows_a_clock_that_is_slewed() {
        let clock = HostClock::new((0, 0), vec![(100, 5_100), (0, 1_000), (200, 5_200)]);
        assert_eq!(clock.unix_ns(50), 3_050);
        assert_eq!(clock.unix_ns(150), 5_150);
        assert_eq!(clock.unix_ns(250), 5_250);
        assert_eq!(clock.unix_ns(-10), 990);
        assert_eq!(HostClock::new((7, 107), Vec::new()).unix_ns(9), 109);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_and_said() {
        const S: i64 = 1_000_000_000;
        const HOUR: i64 = 3600 * S;
        let pairs = [(0, 0), (10, 0), (11, 1), (20, 1), (24, 1), (25, 0), (30, 0)];
        let pairs = pairs.map(|(mono, hours)| (mono * S, mono * S + hours * HOUR));
        let clock = HostClock::new((0, 0), pairs.to_vec());
        let step = |at_unix_ns, by_ns| ClockStep { at_unix_ns, within_ns: S, by_ns };
        assert_eq!(clock.steps(), [step(11 * S + HOUR, HOUR), step(25 * S, -HOUR)]);
        assert_eq!(clock.unix_ns(5 * S), 5 * S);
        assert_eq!(clock.unix_ns(10 * S + S / 2), 10 * S + S / 2);
        assert_eq!(clock.unix_ns(12 * S), 12 * S + HOUR);
        assert_eq!(clock.unix_ns(24 * S + S / 2), 24 * S + S / 2 + HOUR);
        assert_eq!(clock.unix_ns(26 * S), 26 * S);
    }

    /// A hundred connections over a minute, made between 80 µs before and 120 µs after what the client
    /// knows of them, by a clock that is `ahead_ns` ahead and gains `ppm`.
    fn sightings(ahead_ns: i64, ppm: f64) -> Vec<ClockSighting> {
        let start = 1_700_000_000_000_000_000;
        (0..100)
            .map(|n| {
                let host_ns = start + n * 600_000_000;
                let client = host_ns + ahead_ns + gained_ns(host_ns - start, ppm);
                ClockSighting {
                    client_before_ns: client - 1_000 - (n % 7) * 11_000,
                    host_ns,
                    client_after_ns: client + 2_000 + (n % 5) * 23_000,
                }
            })
            .collect()
    }

    #[test]
    fn an_offset_is_bounded_by_every_connection() {
        for ahead_ns in [-3_000_000_000, 250_000_000, 0] {
            let offset = client_offset(&sightings(ahead_ns, 0.0)).unwrap();
            assert!(offset.steady && offset.drift_ppm == 0.0);
            assert!((offset.offset_ns - ahead_ns).abs() <= offset.uncertainty_ns);
            assert_eq!(offset.uncertainty_ns, 1_500);
            assert_eq!(offset.to_host(5_000_000_000 + offset.offset_ns), 5_000_000_000);
        }
        assert_eq!(client_offset(&[]), None);
    }

    #[test]
    fn a_drift_is_taken_off() {
        for (ahead_ns, ppm) in [(-3_000_000_000, 100.0), (250_000_000, -100.0)] {
            let sightings = sightings(ahead_ns, ppm);
            let offset = client_offset(&sightings).unwrap();
            assert!(offset.steady, "{offset:?}");
            assert!((offset.drift_ppm - ppm).abs() < 2.0, "{offset:?}");
            for sighting in &sightings {
                let host = offset.to_host(sighting.client_before_ns);
                let error = (host - sighting.host_ns).abs();
                // 6 ms gained over the minute, of which less than 0.3 ms are left.
                assert!(error < 300_000 && error <= offset.uncertainty_ns + 100_000, "{error}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_is_not_steady() {
        let mut sightings = sightings(0, 0.0);
        for sighting in &mut sightings[50..] {
            sighting.client_before_ns += 2_000_000_000;
            sighting.client_after_ns += 2_000_000_000;
        }
        let offset = client_offset(&sightings).unwrap();
        assert!(!offset.steady);
        assert!(offset.uncertainty_ns >= 500_000_000, "{offset:?}");
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(utc(1_700_000_000_250_000_000), "2023-11-14 22:13:20.250");
        assert_eq!(utc_time(1_700_000_000_250_000_000), "22:13:20");
    }
}
