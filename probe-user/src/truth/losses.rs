//! What was lost, in words, and when that was noticed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use probe_common::loss::Stat;

use super::counters::Counters;

/// Losses that make counts inexact.
const OF_COUNTS: [(Stat, &str); 3] = [
    (
        Stat::ConnectionMapFull,
        "connections were not counted: the connection map was full (`probe stop --purge`, then start with a \
         larger --max-connections)",
    ),
    (
        Stat::ConnectionInsertFailed,
        "connections were not counted: the kernel could not insert them",
    ),
    (
        Stat::CountSlotsFull,
        "connections were not counted: more containers × ports were in use at once than there are counters",
    ),
];

/// Losses that leave counts exact and connections' details incomplete.
const OF_DETAIL: [(Stat, &str); 3] = [
    (
        Stat::RecordsLost,
        "connection records were lost: they came faster than they were read (`probe stop --purge`, then \
         `probe serve` with a larger --ring-bytes)",
    ),
    (
        Stat::PayloadLost,
        "first packets were lost: the HTTP side of their connections is not known (`probe stop --purge`, then \
         `probe serve` with a larger --ring-bytes)",
    ),
    (Stat::HandshakeMapFull, "handshakes were not followed: too many at a time"),
];

/// Lost behind the ring, where the kernel side knows nothing of it.
const UNDELIVERED: &str = "connection records did not reach one of those who follow them (a recording, `probe top`, a \
    page): it was 20 s behind";

/// Of those, what is lost where no agent reads what the pinned programs hand on.
const UNREAD: [(Stat, &str); 2] = [
    (Stat::RecordsLost, "connection records were lost before this agent started: nobody read them"),
    (Stat::PayloadLost, "first packets were lost before this agent started: nobody read them"),
];

/// What a sentence of these says was lost, and how many up to now; `None` for one that tells of no loss, but
/// of what is uncertain.
#[must_use]
pub fn lost(sentence: &str) -> Option<(&'static str, u64)> {
    let (number, words) = sentence.split_once(' ')?;
    let kernel = OF_COUNTS.iter().chain(&OF_DETAIL).chain(&UNREAD).map(|(_, loss)| *loss);
    let loss = kernel.chain([UNDELIVERED]).find(|loss| words.starts_with(loss))?;
    Some((loss, number.parse().ok()?))
}

/// What a sentence tells of, however far that has gone: the words of a loss, else the sentence without its
/// numbers.
#[must_use]
pub fn gist(sentence: &str) -> String {
    match lost(sentence) {
        Some((loss, _)) => loss.to_owned(),
        None => sentence.chars().filter(|character| !character.is_ascii_digit()).collect(),
    }
}

/// When each loss was first and last noticed.
#[derive(Debug, Default)]
pub struct Losses {
    /// What was lost while no agent ran.
    unread: HashMap<Stat, u64>,
    /// By what was lost.
    noticed: Mutex<HashMap<&'static str, Noticed>>,
}

#[derive(Debug)]
struct Noticed {
    lost: u64,
    first: SystemTime,
    last: SystemTime,
}

/// A sentence for each loss.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub of_counts: Vec<String>,
    pub of_detail: Vec<String>,
}

impl Losses {
    /// From now on. `taken_over`: the programs ran before.
    #[must_use]
    pub fn since_now(counters: &Counters, taken_over: bool) -> Self {
        let unread = UNREAD.iter().filter(|_| taken_over);
        let unread = unread.map(|&(stat, _)| (stat, counters.statistic(stat))).collect();
        Self { unread, noticed: Mutex::default() }
    }

    /// What was lost up to now. A loss is noticed when somebody looks, so after it happened.
    /// `undelivered`: records that were lost behind the ring.
    #[must_use]
    pub fn look(&self, counters: &Counters, undelivered: u64) -> Told {
        let now = SystemTime::now();
        let unread = |stat| self.unread.get(&stat).copied().unwrap_or(0);
        let lost = |stat| counters.statistic(stat) - unread(stat);
        let tell = |losses: &[(Stat, &'static str)]| {
            losses.iter().filter_map(|&(stat, words)| self.tell(words, lost(stat), now)).collect()
        };
        let mut of_detail: Vec<String> = tell(&OF_DETAIL);
        of_detail.extend(self.tell(UNDELIVERED, undelivered, now));
        let before = UNREAD.iter().filter(|(stat, _)| unread(*stat) > 0);
        of_detail.extend(before.map(|&(stat, words)| format!("{} {words}", unread(stat))));
        Told { of_counts: tell(&OF_COUNTS), of_detail }
    }

    fn tell(&self, words: &'static str, lost: u64, now: SystemTime) -> Option<String> {
        if lost == 0 {
            return None;
        }
        let mut all = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        let noticed = all.entry(words).or_insert(Noticed { lost, first: now, last: now });
        if noticed.lost != lost {
            noticed.lost = lost;
            noticed.last = now;
        }
        let [first, last] = [noticed.first, noticed.last].map(humantime::format_rfc3339_seconds);
        Some(if noticed.first == noticed.last {
            format!("{lost} {words}; noticed at {first}")
        } else {
            format!("{lost} {words}; noticed from {first} to {last}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::truth::audit::Audit;

    #[test]
    fn a_loss_has_the_interval_in_which_it_grew() {
        let losses = Losses::default();
        let tell = |lost, second| {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            losses.tell("records", lost, now)
        };
        assert_eq!(tell(0, 1), None);
        assert_eq!(tell(3, 2).as_deref(), Some("3 records; noticed at 1970-01-01T00:00:02Z"));
        assert_eq!(tell(3, 9).as_deref(), Some("3 records; noticed at 1970-01-01T00:00:02Z"));
        let both = "5 records; noticed from 1970-01-01T00:00:02Z to 1970-01-01T00:01:00Z";
        assert_eq!(tell(5, 60).as_deref(), Some(both));
        assert_eq!(tell(5, 61).as_deref(), Some(both));
    }

    #[test]
    fn what_is_uncertain_is_not_lost() {
        let losses = Losses::default();
        let told = losses.tell(OF_DETAIL[0].1, 7, UNIX_EPOCH);
        assert_eq!(lost(&told.unwrap()), Some((OF_DETAIL[0].1, 7)));
        assert_eq!(lost(&format!("23 {}", UNREAD[1].1)), Some((UNREAD[1].1, 23)));
        let beyond = Audit { beyond: [(1, 592)].into(), ..Audit::default() }.beyond_words();
        assert_eq!(lost(&beyond.unwrap()), None);
        assert_eq!(lost("no audit since 10:00"), None);
    }

    #[test]
    fn a_reason_that_goes_on_is_the_same() {
        let losses = Losses::default();
        let [words, others] = [OF_DETAIL[0].1, OF_DETAIL[1].1];
        let told = |words, lost| losses.tell(words, lost, UNIX_EPOCH).unwrap();
        assert_eq!(gist(&told(words, 7)), words);
        assert_eq!(gist(&told(words, 8)), words);
        assert_ne!(gist(&told(others, 7)), words);
        let [audits, later] = [3, 5].map(|gone| gist(&format!("{gone} sockets that are gone")));
        assert_eq!(audits, later);
        assert_ne!(audits, gist("3 sockets that are not counted"));
    }
}
