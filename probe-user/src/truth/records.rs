//! Drains the kernel's ring: puts first payloads together, and hands ended connections with what
//! their payloads said to whoever listens.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use probe_common::{connection::Connection, handshake::Pair, payload::Piece};
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use super::{pending::Pending, source::Ended};
use crate::{
    clock,
    handshake::follow::{Follower, Observed},
};

/// The kernel side does not wake us per record. 20 ms at 25,000 connections a second fill a fifth of the ring.
const POLL: Duration = Duration::from_millis(20);
/// The same where fewer records come: a rush of that kind that begins meanwhile fills half of it.
const POLL_IDLE: Duration = Duration::from_millis(50);
/// Records a second, of which a connection with both ends on this host makes six.
const BUSY: f64 = 10_000.0;
/// Between looks at handshakes that have failed.
const PENDING_EVERY: Duration = Duration::from_secs(1);
/// Batches that a slow listener may fall behind: 20 s.
const BACKLOG: usize = 1000;

struct Shared {
    listeners: Mutex<Vec<Sender<Ended>>>,
    /// Records that were not delivered because a listener fell too far behind.
    undelivered: AtomicU64,
    /// Records of connections taken from the ring.
    delivered: AtomicU64,
    follower: Mutex<Follower>,
    pending: Mutex<Pending>,
    stop: AtomicBool,
}

/// For which losses their conversations were forgotten.
#[derive(Default)]
struct Forgotten {
    lost: u64,
    /// Some were missing for the first time.
    look_again: bool,
}

/// The draining thread. Stops when dropped.
pub struct Records {
    shared: Arc<Shared>,
    forgotten: Mutex<Forgotten>,
    thread: Option<JoinHandle<()>>,
}

impl Records {
    /// # Errors
    /// Where no thread can be started.
    pub fn start(ring: RingBuf<MapData>, pending: Pending) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            listeners: Mutex::default(),
            undelivered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            follower: Mutex::default(),
            pending: Mutex::new(pending),
            stop: AtomicBool::new(false),
        });
        let thread = thread::Builder::new().name("records".into()).spawn({
            let shared = Arc::clone(&shared);
            move || drain(ring, &shared)
        })?;
        Ok(Self { shared, forgotten: Mutex::default(), thread: Some(thread) })
    }

    /// A new listener, from now on.
    #[must_use]
    pub fn listen(&self) -> Receiver<Ended> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Open connections, with what their payloads said.
    #[must_use]
    pub fn observe(&self, connections: Vec<Connection>) -> Vec<Observed> {
        let follower = self.shared.follower.lock().unwrap_or_else(PoisonError::into_inner);
        connections
            .into_iter()
            .map(|connection| Observed::new(connection, follower.get(&connection)))
            .collect()
    }

    /// Handshakes without a connection.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn pending(&self) -> anyhow::Result<Vec<Observed>> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// No passive handshake waits for its last ACK.
    #[must_use]
    pub fn has_no_pending(&self) -> bool {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Forgets what was said on connections whose records the ring has lost, `lost` up to now: they are not among
    /// `followed`, nor do they wait for their last ACK. To be called now and then.
    ///
    /// # Errors
    /// Those of `followed`, and as bpf(2).
    pub fn forget_lost(
        &self,
        lost: u64,
        followed: impl FnOnce() -> anyhow::Result<HashSet<Pair>>,
    ) -> anyhow::Result<()> {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.lost == lost && !forgotten.look_again {
            return Ok(());
        }
        let mut followed = followed()?;
        followed.extend(self.pending()?.iter().map(|handshake| Pair::of(handshake)));
        let mut follower = self.shared.follower.lock().unwrap_or_else(PoisonError::into_inner);
        *forgotten = Forgotten { lost, look_again: follower.forget_missing(&followed) };
        Ok(())
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
    let mut looked_for_failed = Instant::now();
    let mut pause = POLL;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut batch = Ended::new();
        let mut records = 0_u32;
        {
            let mut follower = shared.follower.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(item) = ring.next() {
                records += 1;
                match parse(&item) {
                    Some(Record::Payload(piece, bytes)) => follower.feed(piece, bytes),
                    Some(Record::Connection(connection)) => {
                        shared.delivered.fetch_add(1, Ordering::Relaxed);
                        batch.push(Observed::new(*connection, follower.take(connection)));
                    }
                    None => {}
                }
                if batch.len() == 4096 {
                    deliver(shared, &batch);
                    batch.clear();
                }
            }
        }
        if looked_for_failed.elapsed() >= PENDING_EVERY {
            looked_for_failed = Instant::now();
            let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            // What can't be read now is read in a second.
            let failed = pending.give_up(clock::mono_ns().unsigned_abs()).unwrap_or_default();
            let mut follower = shared.follower.lock().unwrap_or_else(PoisonError::into_inner);
            for handshake in &failed {
                // What it said no connection will ask for.
                follower.take(handshake);
            }
            batch.extend(failed);
        }
        if !batch.is_empty() {
            deliver(shared, &batch);
        }
        let rate = f64::from(records) / pause.as_secs_f64();
        pause = if rate < BUSY { POLL_IDLE } else { POLL };
        thread::sleep(pause);
    }
}

enum Record<'a> {
    Payload(&'a Piece, &'a [u8]),
    Connection(&'a Connection),
}

fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    if bytes.first_chunk() != Some(&0_u64.to_ne_bytes()) {
        return view(bytes).map(Record::Connection);
    }
    let piece: &Piece = view(bytes)?;
    let payload = bytes.get(size_of::<Piece>()..)?.get(..usize::from(piece.length))?;
    Some(Record::Payload(piece, payload))
}

/// The record at the front of `bytes`, in place.
fn view<T: Pod>(bytes: &[u8]) -> Option<&T> {
    let fits =
        bytes.len() >= size_of::<T>() && bytes.as_ptr().addr().is_multiple_of(align_of::<T>());
    // SAFETY: long enough and aligned (checked), and every bit pattern of a Pod is valid.
    fits.then(|| unsafe { &*bytes.as_ptr().cast::<T>() })
}

fn deliver(shared: &Shared, batch: &Ended) {
    let count = batch.len() as u64;
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
