//! When Unix time was set: what the recorder writes pairs of its clocks around, and the analyzer finds
//! between them.

/// Unix time that moves against the monotonic clock by more was set, or the host slept, and it was not
/// slewed by a time daemon (1/2000 at most). A pair itself is off by less.
const STEP_NS: i64 = 100_000_000;
const SLEWED_AT_MOST: i64 = 1000;

/// By how much Unix time was set between two moments, each on the monotonic clock and in Unix time, in
/// nanoseconds; `None` where it was not. Negative: back.
#[must_use]
pub fn step_ns((mono, unix): (i64, i64), (later_mono, later_unix): (i64, i64)) -> Option<i64> {
    let elapsed_ns = later_mono - mono;
    let by_ns = later_unix - unix - elapsed_ns;
    (by_ns.abs() > STEP_NS + elapsed_ns / SLEWED_AT_MOST).then_some(by_ns)
}
