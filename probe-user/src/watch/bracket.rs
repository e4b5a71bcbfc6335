//! Between which two numbers the kernel's count lay over an interval.

/// The kernel's count at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) mono_ns: i64,
    /// Established, those in `plain_http` left out.
    pub(crate) established: i64,
    /// Established, and used for an HTTP request that was not answered with an upgrade: monitoring,
    /// or a handshake that is under way. 0 where packets are not looked at.
    pub(crate) plain_http: i64,
    /// Ended by the peer, still held by the process.
    pub(crate) close_wait: i64,
    /// Over, but a process still holds the descriptor.
    pub(crate) closed_held: i64,
    /// Connections that were established since the programs were attached; 0 where that is not
    /// known.
    pub(crate) opened: u64,
}

/// Lowest and highest count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bracket {
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Bracket {
    /// From levels in order of time. Between two levels the count may have been higher than both by
    /// what was opened between them, and lower by what was closed; both are known from the totals.
    pub(crate) fn of(levels: &[Level]) -> Self {
        let first = levels.first().map_or(0, |level| level.established);
        let mut bracket = Self { min: first, max: first };
        for pair in levels.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let opened = i64::try_from(b.opened.saturating_sub(a.opened)).unwrap_or(i64::MAX);
            bracket.min = bracket.min.min(a.established).min(b.established - opened);
            bracket.max = bracket.max.max(b.established).max(a.established + opened);
        }
        // A count is never negative, however loose the bound.
        bracket.min = bracket.min.max(0);
        bracket
    }

    /// How many more than the highest count are reported.
    pub(crate) fn phantoms(self, reported: i64) -> i64 {
        (reported - self.max).max(0)
    }

    /// How many fewer than the lowest count are reported.
    pub(crate) fn reverse_phantoms(self, reported: i64) -> i64 {
        (self.min - reported).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(established: i64, opened: u64) -> Level {
        Level { mono_ns: 0, established, plain_http: 0, close_wait: 0, closed_held: 0, opened }
    }

    #[test]
    fn a_quiet_interval_is_one_number() {
        let bracket = Bracket::of(&[level(997, 5000), level(997, 5000)]);
        assert_eq!(bracket, Bracket { min: 997, max: 997 });
        assert_eq!(bracket.phantoms(1042), 45);
        assert_eq!(bracket.reverse_phantoms(990), 7);
        assert_eq!((bracket.phantoms(997), bracket.reverse_phantoms(997)), (0, 0));
    }

    #[test]
    fn what_came_and_went_between_levels_is_allowed_for() {
        // 3 opened, 5 closed: up to 103 before the first close, down to 95 before the first open.
        let bracket = Bracket::of(&[level(100, 10), level(98, 13)]);
        assert_eq!(bracket, Bracket { min: 95, max: 103 });
    }

    #[test]
    fn without_totals_only_the_levels_count() {
        let levels = [level(100, 0), level(90, 0), level(95, 0)];
        assert_eq!(Bracket::of(&levels), Bracket { min: 90, max: 100 });
    }

    #[test]
    fn no_bound_is_negative() {
        let bracket = Bracket::of(&[level(0, 0), level(0, 7)]);
        assert_eq!(bracket, Bracket { min: 0, max: 7 });
    }

    /// Every order of opens and closes between two levels stays within the bracket.
    #[test]
    fn bounds_hold_for_every_interleaving() {
        for opens in 0..5u32 {
            for closes in 0..5u32 {
                for order in 0u32..1 << (opens + closes) {
                    if order.count_ones() != opens {
                        continue;
                    }
                    let (mut count, mut lowest, mut highest) = (6i64, 6i64, 6i64);
                    for step in 0..opens + closes {
                        count += if order >> step & 1 == 1 { 1 } else { -1 };
                        lowest = lowest.min(count);
                        highest = highest.max(count);
                    }
                    let levels = [level(6, 50), level(count, 50 + u64::from(opens))];
                    let bracket = Bracket::of(&levels);
                    assert!(bracket.min <= lowest && highest <= bracket.max);
                }
            }
        }
    }
}
