//! The two clocks: `CLOCK_MONOTONIC`, which the kernel stamps records with, and Unix time for people.
//! And what a thread has worked.

use std::time::Duration;

use capture::clock::step_ns;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) mono_ns: i64,
    pub(crate) unix_ns: i64,
}

impl Pair {
    /// The closest of five tries: Unix time between two readings of the monotonic clock, whose
    /// middle is taken. Off by less than a microsecond unless every try was interrupted.
    pub(crate) fn now() -> Self {
        let mut best = (i64::MAX, Pair { mono_ns: 0, unix_ns: 0 });
        for _ in 0..5 {
            let before = mono_ns();
            let unix_ns = unix_ns();
            let width = mono_ns() - before;
            if width < best.0 {
                best = (width, Pair { mono_ns: before + width / 2, unix_ns });
            }
        }
        best.1
    }

    /// By how much Unix time was set since an earlier pair, where it was: more than any slewing does.
    pub(crate) fn set_since(self, earlier: Pair) -> Option<i64> {
        step_ns((earlier.mono_ns, earlier.unix_ns), (self.mono_ns, self.unix_ns))
    }

    /// Unix time of a monotonic time, by this pair.
    pub(crate) fn unix_of(self, mono_ns: i64) -> i64 {
        self.unix_ns + (mono_ns - self.mono_ns)
    }
}

/// `CLOCK_MONOTONIC` now, in nanoseconds; what `bpf_ktime_get_ns` returns.
pub(crate) fn mono_ns() -> i64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Unix time now, in nanoseconds.
pub(crate) fn unix_ns() -> i64 {
    read(libc::CLOCK_REALTIME)
}

/// What this thread has worked so far: user and system time.
pub(crate) fn thread_cpu() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_THREAD_CPUTIME_ID).unsigned_abs())
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the kernel to fill. These clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// `12:00:31` in UTC, of a Unix time.
pub(crate) fn time_of_day(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(1_000_000_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A duration as people write it: `10m`, `5m 30s`, `250ms`.
pub(crate) fn short(duration: Duration) -> String {
    let rounded = if duration.as_secs() >= 10 {
        Duration::from_secs(duration.as_secs())
    } else {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_maps_times_both_ways() {
        let pair = Pair { mono_ns: 1_000, unix_ns: 50_000 };
        assert_eq!(pair.unix_of(3_500), 52_500);
        assert_eq!(pair.unix_of(0), 49_000);
    }

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_is_slewed() {
        let earlier = Pair { mono_ns: 0, unix_ns: 0 };
        let later = |by_ns: i64| Pair { mono_ns: 1_000_000_000, unix_ns: 1_000_000_000 + by_ns };
        assert_eq!(later(500_000).set_since(earlier), None);
        assert_eq!(later(101_000_000).set_since(earlier), None);
        assert_eq!(later(102_000_000).set_since(earlier), Some(102_000_000));
        assert_eq!(later(-3_600_000_000_000).set_since(earlier), Some(-3_600_000_000_000));
        // A day of slewing.
        let day = 86_400_000_000_000;
        let slewed = Pair { mono_ns: day, unix_ns: day + day / 2000 };
        assert_eq!(slewed.set_since(earlier), None);
    }

    #[test]
    fn the_pair_lies_between_readings() {
        let before = (mono_ns(), unix_ns());
        let pair = Pair::now();
        assert!(before.0 <= pair.mono_ns && pair.mono_ns <= mono_ns());
        assert!(before.1 <= pair.unix_ns && pair.unix_ns <= unix_ns());
    }

    #[test]
    fn only_work_is_processor_time() {
        let begun = thread_cpu();
        std::thread::sleep(Duration::from_millis(50));
        let rested = thread_cpu();
        while thread_cpu() - rested < Duration::from_millis(20) {}
        assert!(rested - begun < Duration::from_millis(20), "{:?}", rested - begun);
    }

    #[test]
    fn people_read_durations() {
        assert_eq!(short(Duration::from_secs(330)), "5m 30s");
        assert_eq!(short(Duration::from_millis(250)), "250ms");
        assert_eq!(time_of_day(1_700_000_000_000_000_000), "22:13:20");
    }
}
