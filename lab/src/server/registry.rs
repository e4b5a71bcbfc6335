//! What the server believes: its table of connections, and its counter.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::net::TcpStream;

use crate::fault::{Admission, CleanUp};
use crate::units::unix_ns;

/// One entry of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// The client's address and port, as `/connections` gives them.
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) since_unix_ns: i64,
}

/// Counter and table are separate on purpose: real servers keep both, and they disagree.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    count: AtomicI64,
    table: Mutex<HashMap<u64, Entry>>,
    next_id: AtomicU64,
    /// Descriptors that a fault keeps open.
    held: Mutex<Vec<TcpStream>>,
}

impl Registry {
    /// Takes a connection in; the id is `None` if it was not registered.
    pub(crate) fn admit(
        &self,
        admission: Admission,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<u64> {
        if !admission.register {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry =
            Entry { peer: canonical(peer), local: canonical(local), since_unix_ns: unix_ns() };
        lock(&self.table).insert(id, entry);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    /// Does what `clean_up` says for a connection that was registered under `id`.
    pub(crate) fn clean_up(&self, id: u64, clean_up: CleanUp) {
        if clean_up.remove_entry {
            lock(&self.table).remove(&id);
        }
        self.count.fetch_sub(clean_up.decrement, Ordering::Relaxed);
    }

    pub(crate) fn hold(&self, stream: TcpStream) {
        lock(&self.held).push(stream);
    }

    /// The counter; negative after more decrements than increments.
    pub(crate) fn count(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    /// The table, oldest entry first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = lock(&self.table).values().cloned().collect();
        entries.sort_by_key(|entry| entry.since_unix_ns);
        entries
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
