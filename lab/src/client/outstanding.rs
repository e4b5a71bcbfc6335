//! What was sent and waits for its answer. Each is timed from when it was sent, however many were sent after
//! it: a server that stands still for a while is slow to all of them.

use std::collections::VecDeque;

use tokio::time::Instant;

/// A server that never answers does not fill the memory.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Outstanding(VecDeque<(u64, Instant)>);

impl Outstanding {
    pub(super) fn sent(&mut self, number: u64) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((number, Instant::now()));
    }

    /// When that was sent. What was sent before it will not be answered any more.
    pub(super) fn answered(&mut self, number: u64) -> Option<Instant> {
        let place = self.0.iter().position(|(sent, _)| *sent == number)?;
        self.0.drain(..=place).next_back().map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_timed_from_when_it_was_sent() {
        let mut waiting = Outstanding::default();
        let began = Instant::now();
        waiting.sent(0);
        let between = Instant::now();
        for number in 1..=3 {
            waiting.sent(number);
        }
        assert!((began..=between).contains(&waiting.answered(0).unwrap()));
        // Only the last of several pings may be answered.
        assert!(waiting.answered(2).is_some_and(|at| at >= between));
        assert_eq!(
            (waiting.answered(1), waiting.answered(2), waiting.answered(7)),
            (None, None, None)
        );
        assert!(waiting.answered(3).is_some());
        for number in 0..=256 {
            waiting.sent(number);
        }
        assert_eq!(waiting.answered(0), None);
        assert!(waiting.answered(1).is_some());
    }
}
