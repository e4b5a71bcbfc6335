//! Which processes answered, by when they started: what of that is a restart.

use status_page::ROUNDING_S;

/// When a process started, in Unix seconds, and who says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start {
    /// The server, by a clock that may be another.
    OfPage(f64),
    /// This host's kernel, of the oldest of the processes that listen.
    OfOldest(f64),
}

/// What is known of the starts of a server's processes.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// As pages told them, one after the other.
    pub(super) of_page: Vec<f64>,
    /// The last of the oldest process, and when it was looked at.
    of_oldest: Option<(f64, i64)>,
    pub(super) newcomers: u64,
}

impl Starts {
    /// Whether none of the processes of before is left, and whether a younger one answered than before.
    pub(super) fn take(&mut self, start: Start, looked_unix_ns: i64) -> (bool, bool) {
        match start {
            Start::OfPage(start) => {
                let before = self.of_page.last().copied();
                if before != Some(start) {
                    self.of_page.push(start);
                }
                (false, before.is_some_and(|before| start - before > ROUNDING_S))
            }
            // The oldest of several may end while the next goes on: that one had started before the look.
            Start::OfOldest(start) => {
                let before = self.of_oldest.replace((start, looked_unix_ns));
                let is_newcomer = before.is_some_and(|(before, looked_unix_ns)| {
                    let looked_unix_s = looked_unix_ns as f64 / 1e9;
                    start - before > ROUNDING_S && start > looked_unix_s - ROUNDING_S
                });
                self.newcomers += u64::from(is_newcomer);
                (is_newcomer, false)
            }
        }
    }
}
