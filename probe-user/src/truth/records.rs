//! Drains the kernel's ring of ended connections and hands them to whoever listens.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use probe_common::connection::Connection;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use super::source::Ended;

/// The kernel side does not wake us per record. 20 ms at 25,000 records a second fill 2 % of the ring.
const POLL: Duration = Duration::from_millis(20);
/// Batches that a slow listener may fall behind: 20 s.
const BACKLOG: usize = 1000;

#[derive(Default)]
struct Shared {
    listeners: Mutex<Vec<Sender<Ended>>>,
    /// Records that were not delivered because a listener fell too far behind.
    undelivered: AtomicU64,
    delivered: AtomicU64,
    stop: AtomicBool,
}

/// The draining thread. Stops when dropped.
pub struct Records {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Records {
    /// # Errors
    /// Where no thread can be started.
    pub fn start(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("records".into()).spawn({
            let shared = Arc::clone(&shared);
            move || drain(ring, &shared)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A new listener, from now on.
    #[must_use]
    pub fn listen(&self) -> Receiver<Ended> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Records lost on the way to a listener, and records taken from the ring.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (
            self.shared.undelivered.load(Ordering::Relaxed),
            self.shared.delivered.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drain(mut ring: RingBuf<MapData>, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut batch = Ended::new();
        while let Some(item) = ring.next() {
            if let Some(connection) = parse(&item) {
                batch.push(connection);
            }
            if batch.len() == 4096 {
                deliver(shared, std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            deliver(shared, batch);
        }
        thread::sleep(POLL);
    }
}

fn parse(bytes: &[u8]) -> Option<Connection> {
    let is_payload = bytes.first_chunk() == Some(&0_u64.to_ne_bytes());
    if is_payload || bytes.len() < size_of::<Connection>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a valid Connection.
    Some(unsafe { bytes.as_ptr().cast::<Connection>().read_unaligned() })
}

fn deliver(shared: &Shared, batch: Ended) {
    let count = batch.len() as u64;
    shared.delivered.fetch_add(count, Ordering::Relaxed);
    let mut listeners = shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|listener| match listener.try_send(batch.clone()) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            shared.undelivered.fetch_add(count, Ordering::Relaxed);
            true
        }
        Err(TrySendError::Closed(_)) => false,
    });
}
