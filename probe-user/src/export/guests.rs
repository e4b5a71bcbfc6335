//! The connections of the agent's HTTP side: how many there may be, and who has to go.
//!
//! Whoever floods, dawdles, never asks or does not read must not keep others out. So a new connection is
//! let in, and the one that has waited longest for a request or an answer makes room. Streams stay: they
//! are far fewer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Connections at the same time.
const MOST: usize = 512;
/// From a request's head to the last byte of its answer, streams apart.
const ANSWER_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Guests {
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    guests: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    doing: Doing,
    leave: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Has asked nothing, or not the next thing.
    Waiting,
    /// Is being answered.
    Answered,
    /// Takes an answer without an end.
    Streaming,
}

/// One of them; its place is free once this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    id: u64,
    all: Arc<Guests>,
    leave: Arc<Notify>,
}

impl Guests {
    /// `None` where all take streams.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Guest> {
        let mut present = self.lock();
        if present.guests.len() >= MOST && !present.send_one_away() {
            return None;
        }
        let id = present.next;
        present.next += 1;
        let leave = Arc::new(Notify::new());
        let entry =
            Entry { since: Instant::now(), doing: Doing::Waiting, leave: Arc::clone(&leave) };
        present.guests.insert(id, entry);
        Some(Guest { id, all: Arc::clone(self), leave })
    }

    /// Sends one away, where descriptors are short.
    pub(crate) fn make_room(&self) {
        self.lock().send_one_away();
    }

    /// Sends away who takes too long to read an answer.
    pub(crate) fn send_slow_away(&self) {
        self.lock().guests.retain(|_, entry| {
            let stays = entry.doing != Doing::Answered || entry.since.elapsed() <= ANSWER_TIME;
            if !stays {
                entry.leave.notify_one();
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        // Nothing panics between two writes that belong together.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn send_one_away(&mut self) -> bool {
        let longest = self
            .guests
            .iter()
            .filter(|(_, entry)| entry.doing != Doing::Streaming)
            .min_by_key(|(_, entry)| entry.since)
            .map(|(id, _)| *id);
        let Some(entry) = longest.and_then(|id| self.guests.remove(&id)) else { return false };
        entry.leave.notify_one();
        true
    }
}

impl Guest {
    /// Says what it does from now on.
    pub(crate) fn now(&self, doing: Doing) {
        if let Some(entry) = self.all.lock().guests.get_mut(&self.id) {
            (entry.since, entry.doing) = (Instant::now(), doing);
        }
    }

    /// Returns once it has to go.
    pub(crate) async fn sent_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.all.lock().guests.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_longest_makes_room() {
        let all = Arc::new(Guests::default());
        let mut guests: Vec<Guest> = (0..MOST).map(|_| all.admit().unwrap()).collect();
        guests[0].now(Doing::Streaming);
        guests[1].now(Doing::Answered);
        guests[2].now(Doing::Waiting);
        let late = all.admit().unwrap();
        guests[3].sent_away().await;
        // Whose turn it was is not there any more: its end frees nobody else's place.
        drop(guests.remove(3));
        assert_eq!(all.lock().guests.len(), MOST);

        for guest in guests.iter().skip(3) {
            guest.now(Doing::Answered);
        }
        let later = all.admit().unwrap();
        guests[1].sent_away().await;
        for guest in guests.iter().chain([&late, &later]) {
            guest.now(Doing::Streaming);
        }
        assert!(all.admit().is_none());
        drop(late);
        assert!(all.admit().is_some());
    }
}
