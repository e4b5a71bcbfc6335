//! Managers: what a server keeps for every connection beside the socket. Here each has a buffer and a
//! task; a user may have [`LIMIT`] of them, and from [`EMERGENCY`] on an emergency cleanup looks for
//! those whose connection is over. A bug strikes the user of its own name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::truth::{Hit, Leg, TruthLog};

mod cold_start;
mod emergency;
mod key_mismatch;
mod reconnects;
mod slow_cleanup;
mod tabs;

/// Most managers of a user.
pub(crate) const LIMIT: usize = 20;

/// From so many on the emergency cleanup runs: 80 %.
const EMERGENCY: usize = LIMIT * 8 / 10;

/// What a manager keeps in memory, written to so that it counts as resident.
const BUFFER_BYTES: usize = 1 << 20;

/// Who connects, and for which thread of work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) user: String,
    /// Told apart by the client's port where the request names none.
    pub(crate) thread: String,
}

/// When a manager whose connection is over is cleaned up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleanup {
    /// So long after the end.
    After(Duration),
    /// By a background job that starts so long after the first connection; ends before are forgotten.
    Background { starts_after: Duration },
    /// By a job that runs once in a cycle; the emergency cleanup waits for the cycle, too.
    Cycle(Duration),
}

/// How a server keeps its managers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What a manager is registered under.
    key: fn(&Visit) -> String,
    /// What it is looked up under when its connection is over.
    cleanup_key: fn(&Visit) -> String,
    /// What an emergency cleanup looks for.
    emergency_key: fn(&Visit) -> String,
    /// Between the look whether there is a manager already, and the new one's entry.
    creation_takes: Duration,
    cleanup: Cleanup,
}

/// A server without a bug.
const CORRECT: Policy = Policy {
    name: "",
    about: "",
    key: |visit| format!("{}:thread_session_{}", visit.user, visit.thread),
    cleanup_key: |visit| format!("{}:thread_session_{}", visit.user, visit.thread),
    emergency_key: |visit| format!("{}:thread_session_{}", visit.user, visit.thread),
    creation_takes: Duration::ZERO,
    cleanup: Cleanup::After(Duration::ZERO),
};

pub(crate) static BUGS: &[Policy] = &[
    tabs::BUG,
    cold_start::BUG,
    reconnects::BUG,
    key_mismatch::BUG,
    slow_cleanup::BUG,
    emergency::BUG,
    emergency::LATE,
];

/// `--manager-bug NAME`
pub(crate) fn bug(name: &str) -> Result<&'static Policy, String> {
    BUGS.iter().find(|bug| bug.name == name).ok_or_else(|| {
        let names: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
        format!("`{name}` is no bug of managers: expected one of {}", names.join(", "))
    })
}

/// The part of `--help` that lists every bug.
pub(crate) fn help() -> String {
    let lines = BUGS.iter().map(|bug| format!("  {:28} {}\n", bug.name, bug.about));
    format!("Bugs of --managers, each of the user of its name:\n{}", lines.collect::<String>())
}

#[derive(Debug)]
struct Manager {
    user: String,
    key: String,
    leg: Leg,
    /// Connections that share it.
    users: usize,
    ended: Option<Instant>,
    _buffer: Vec<u8>,
    /// Ends its task when dropped.
    _task: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    /// Every manager that there is; one that no key leads to stays for good.
    alive: HashMap<u64, Manager>,
    by_key: HashMap<String, u64>,
    next_id: u64,
    first_visit: Option<Instant>,
    refused: u64,
    emergencies: u64,
    emergency_candidates: u64,
    emergency_removed: u64,
    slowest_cleanup: Duration,
}

/// All managers of a server.
#[derive(Debug)]
pub(crate) struct Managers {
    bugs: Vec<&'static Policy>,
    table: Arc<Mutex<Table>>,
    truth: Option<Arc<TruthLog>>,
}

/// A connection's hold on its manager.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    visit: Visit,
}

impl Managers {
    pub(crate) fn new(bugs: &[&'static Policy], truth: Option<TruthLog>) -> Self {
        Managers { bugs: bugs.to_vec(), table: Arc::default(), truth: truth.map(Arc::new) }
    }

    fn policy(&self, visit: &Visit) -> &'static Policy {
        self.bugs.iter().find(|bug| bug.name == visit.user).copied().unwrap_or(&CORRECT)
    }

    /// Whether the user may have one more, after an emergency cleanup if that is due.
    pub(crate) fn has_room(&self, visit: &Visit) -> bool {
        let mut table = lock(&self.table);
        if table.of(&visit.user).count() >= EMERGENCY {
            table.clean_up_in_emergency(visit, self.policy(visit));
        }
        let room = table.of(&visit.user).count() < LIMIT;
        table.refused += u64::from(!room);
        room
    }

    pub(crate) async fn admit(&self, visit: Visit, leg: &Leg) -> Ticket {
        let policy = self.policy(&visit);
        let key = (policy.key)(&visit);
        if let Some(id) = lock(&self.table).share(&key) {
            return Ticket { id, visit };
        }
        if !policy.creation_takes.is_zero() {
            tokio::time::sleep(policy.creation_takes).await;
        }
        let (task, stopped) = oneshot::channel::<()>();
        tokio::spawn(stopped);
        let mut table = lock(&self.table);
        table.first_visit.get_or_insert_with(Instant::now);
        let id = table.next_id;
        table.next_id += 1;
        table.by_key.insert(key.clone(), id);
        let manager = Manager {
            user: visit.user.clone(),
            key,
            leg: *leg,
            users: 1,
            ended: None,
            _buffer: vec![1; BUFFER_BYTES],
            _task: task,
        };
        table.alive.insert(id, manager);
        Ticket { id, visit }
    }

    /// The connection is over: cleans up as the policy has it. Fails if the truth cannot be written.
    pub(crate) fn leave(&self, ticket: Ticket) -> anyhow::Result<()> {
        let policy = self.policy(&ticket.visit);
        let mut table = lock(&self.table);
        if let Some(manager) = table.alive.get_mut(&ticket.id) {
            manager.users -= 1;
            if manager.users > 0 {
                return Ok(());
            }
            manager.ended = Some(Instant::now());
        }
        match policy.cleanup {
            Cleanup::After(Duration::ZERO) => {
                if !table.clean_up(&ticket, policy) {
                    self.missed(&table, &ticket, policy)?;
                }
            }
            Cleanup::After(delay) => {
                let (shared, truth) = (Arc::clone(&self.table), self.truth.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let mut table = lock(&shared);
                    if !table.clean_up(&ticket, policy)
                        && let Err(error) = write(truth.as_deref(), &table, &ticket, policy)
                    {
                        eprintln!("{error:#}");
                    }
                });
            }
            Cleanup::Background { starts_after } => {
                let since = table.first_visit.map_or(Duration::ZERO, |first| first.elapsed());
                if since < starts_after || !table.clean_up(&ticket, policy) {
                    self.missed(&table, &ticket, policy)?;
                }
            }
            Cleanup::Cycle(every) => {
                self.missed(&table, &ticket, policy)?;
                let shared = Arc::clone(&self.table);
                let since = table.first_visit.map_or(Duration::ZERO, |first| first.elapsed());
                let wait = every.saturating_sub(since.min(every));
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    lock(&shared).clean_up(&ticket, policy);
                });
            }
        }
        Ok(())
    }

    fn missed(&self, table: &Table, ticket: &Ticket, policy: &Policy) -> anyhow::Result<()> {
        write(self.truth.as_deref(), table, ticket, policy)
    }

    /// The part of `/health` that is about managers.
    pub(crate) fn health(&self) -> serde_json::Value {
        let table = lock(&self.table);
        let mut health = json!({
            "current": table.alive.len(),
            "limit_per_user": LIMIT,
            "refused": table.refused,
            "cleanup_ms_max": table.slowest_cleanup.as_millis() as u64,
            "emergency_cleanups": table.emergencies,
        });
        if table.emergency_candidates > 0 {
            let share = table.emergency_removed as f64 / table.emergency_candidates as f64;
            health["emergency_effective_percent"] = json!(100.0 * share);
        }
        health
    }

    /// The list, for whoever joins it row by row: `.managers[].peer` is the client's address.
    pub(crate) fn list(&self) -> serde_json::Value {
        let table = lock(&self.table);
        let mut managers: Vec<_> = table.alive.iter().collect();
        managers.sort_by_key(|(id, _)| **id);
        let managers: Vec<_> = managers
            .into_iter()
            .map(|(_, manager)| {
                json!({
                    "peer": manager.leg.remote,
                    "user": manager.user,
                    "key": manager.key,
                    "connected": manager.ended.is_none(),
                })
            })
            .collect();
        json!({ "schema_version": 1, "managers": managers })
    }
}

impl Table {
    fn of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Manager> {
        self.alive.values().filter(move |manager| manager.user == user)
    }

    /// The manager that the key leads to, if it still has a connection.
    fn share(&mut self, key: &str) -> Option<u64> {
        let id = *self.by_key.get(key)?;
        let manager = self.alive.get_mut(&id).filter(|manager| manager.ended.is_none())?;
        manager.users += 1;
        Some(id)
    }

    /// Removes the ticket's manager if the key leads to it. If it leads nowhere, or to another one,
    /// that is taken for somebody else's work.
    fn clean_up(&mut self, ticket: &Ticket, policy: &Policy) -> bool {
        let key = (policy.cleanup_key)(&ticket.visit);
        if self.by_key.get(&key) != Some(&ticket.id) {
            return false;
        }
        self.by_key.remove(&key);
        if let Some(manager) = self.alive.remove(&ticket.id)
            && let Some(ended) = manager.ended
        {
            self.slowest_cleanup = self.slowest_cleanup.max(ended.elapsed());
        }
        true
    }

    /// Removes the user's managers that a key leads to and whose connection is over, except where the
    /// policy would not have them cleaned up yet.
    fn clean_up_in_emergency(&mut self, visit: &Visit, policy: &Policy) {
        let over = |manager: &Manager| manager.ended.is_some();
        let candidates = self.of(&visit.user).filter(|manager| over(manager)).count();
        self.emergencies += 1;
        self.emergency_candidates += candidates as u64;
        let since_first = self.first_visit.map_or(Duration::ZERO, |first| first.elapsed());
        let runs = match policy.cleanup {
            Cleanup::After(_) => true,
            Cleanup::Background { starts_after } => since_first >= starts_after,
            Cleanup::Cycle(every) => since_first >= every,
        };
        let same_key = (policy.key)(visit) == (policy.emergency_key)(visit);
        if !runs || !same_key {
            return;
        }
        let found: Vec<(String, u64)> = self
            .by_key
            .iter()
            .filter(|(_, id)| {
                self.alive
                    .get(id)
                    .is_some_and(|manager| manager.user == visit.user && over(manager))
            })
            .map(|(key, id)| (key.clone(), *id))
            .collect();
        self.emergency_removed += found.len() as u64;
        for (key, id) in found {
            self.by_key.remove(&key);
            self.alive.remove(&id);
        }
    }
}

/// Writes down that a manager stays.
fn write(
    truth: Option<&TruthLog>,
    table: &Table,
    ticket: &Ticket,
    policy: &Policy,
) -> anyhow::Result<()> {
    match (truth, table.alive.get(&ticket.id)) {
        (Some(truth), Some(manager)) => truth.write(&Hit::now(policy.name, None, &manager.leg)),
        _ => Ok(()),
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managers(bugs: &[&str]) -> Managers {
        let bugs: Vec<_> = bugs.iter().map(|name| bug(name).unwrap()).collect();
        Managers::new(&bugs, None)
    }

    fn leg(port: u16) -> Leg {
        Leg {
            remote: ([127, 0, 0, 1], port).into(),
            local: ([127, 0, 0, 1], 1).into(),
            client: None,
        }
    }

    fn visit(user: &str, thread: &str) -> Visit {
        Visit { user: user.to_owned(), thread: thread.to_owned() }
    }

    fn current(managers: &Managers) -> usize {
        lock(&managers.table).alive.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_correct_server_keeps_nothing() {
        let managers = managers(&[]);
        for n in 0..100 {
            let visit = visit("anybody", &n.to_string());
            assert!(managers.has_room(&visit));
            let ticket = managers.admit(visit, &leg(1000 + n)).await;
            managers.leave(ticket).unwrap();
        }
        assert_eq!(current(&managers), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tabs_leak_only_when_they_open_at_once() {
        let managers = managers(&["tabs"]);
        for n in 0..5 {
            let ticket = managers.admit(visit("tabs", &n.to_string()), &leg(n)).await;
            managers.leave(ticket).unwrap();
        }
        let first = managers.admit(visit("tabs", "1"), &leg(1)).await;
        let second = managers.admit(visit("tabs", "2"), &leg(2)).await;
        managers.leave(first).unwrap();
        managers.leave(second).unwrap();
        assert_eq!(current(&managers), 0);
        let threads: Vec<_> = (0..8).map(|n| n.to_string()).collect();
        let legs: Vec<_> = (0..8).map(leg).collect();
        let all = threads.iter().zip(&legs).map(|(n, leg)| managers.admit(visit("tabs", n), leg));
        for ticket in futures_util::future::join_all(all).await {
            managers.leave(ticket).unwrap();
        }
        assert_eq!(current(&managers), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_a_user_is_refused_and_others_are_not() {
        let managers = managers(&["key-mismatch"]);
        let mut admitted = 0;
        for n in 0..25 {
            let visit = visit("key-mismatch", &n.to_string());
            if managers.has_room(&visit) {
                admitted += 1;
                let ticket = managers.admit(visit, &leg(n)).await;
                managers.leave(ticket).unwrap();
            }
        }
        assert_eq!((admitted, current(&managers)), (20, 20));
        assert!(managers.has_room(&visit("another", "1")));
        let health = managers.health();
        assert_eq!(
            (&health["refused"], &health["emergency_effective_percent"]),
            (&5.into(), &0.0.into())
        );
    }

    /// Sixteen are left over from before the cleanup ran, and it runs when the seventeenth comes.
    #[tokio::test(start_paused = true)]
    async fn an_emergency_cleanup_takes_what_the_background_one_has_forgotten() {
        let managers = managers(&["cold-start"]);
        for n in 0..16 {
            let ticket = managers.admit(visit("cold-start", &n.to_string()), &leg(n)).await;
            managers.leave(ticket).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(current(&managers), 16);
        assert!(managers.has_room(&visit("cold-start", "another")));
        let health = managers.health();
        assert_eq!(
            (&health["current"], &health["emergency_effective_percent"]),
            (&0.into(), &100.0.into())
        );
    }

    /// A user who comes and goes a hundred times a second, for three seconds.
    #[tokio::test(start_paused = true)]
    async fn an_emergency_cleanup_makes_room_unless_it_looks_under_another_key() {
        for (name, effective) in [("late-cleanup", 100.0), ("emergency", 0.0)] {
            let managers = managers(&[name]);
            for n in 0..300 {
                let visit = visit(name, &n.to_string());
                if managers.has_room(&visit) {
                    let ticket = managers.admit(visit, &leg(n)).await;
                    managers.leave(ticket).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let health = managers.health();
            assert_eq!(health["emergency_effective_percent"], effective, "{name}");
            assert_eq!(health["refused"] == 0, effective > 50.0, "{name}: {health}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(current(&managers), 0, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_reused_before_its_cleanup_leaves_the_earlier_manager() {
        let managers = managers(&["reconnects"]);
        for n in 0..15 {
            let ticket = managers.admit(visit("reconnects", "1"), &leg(n)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            managers.leave(ticket).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(current(&managers), 14);
    }
}
