//! The ends of connections: told by the kernel, or noticed later.

use core::hint::cold_path;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_kernel};
use probe_common::{
    connection::{Connection, flag},
    loss::Stat,
    state,
};

use crate::{
    count::{self, Place},
    maps::{CLAIMS, CONNECTIONS, RECORDS},
    sock::{Sock, counts_only},
    track::{accept, may_be_accepted, now},
};

/// The consumer polls; waking it for each record would cost an interrupt.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// For whoever ends an entry that another socket has left at an address: else two might, one of them after a new
/// socket's entry was inserted, which it would take out in place of the old one, or count from another state.
/// False if somebody else has the claim. To be given back by [`unclaim`].
///
/// Entries are looked up after claiming, and inserted only by who has seen that there is none, and then no claim. So
/// one that is found under a claim is there until that is given back, or its own socket ends it, and then the removal
/// fails here; and a claim that is made after an insertion was allowed finds nothing that is older.
#[inline(always)]
fn claim(key: u64) -> bool {
    count::note_claim(1);
    let is_ours = CLAIMS.insert(key, now(), u64::from(BPF_NOEXIST)).is_ok();
    if !is_ours {
        count::note_claim(-1);
    }
    is_ours
}

#[inline(always)]
fn unclaim(key: u64) {
    // The kernel may refuse this (`handshake::flag::TAKEN_OVER`).
    let _ = CLAIMS.remove(key);
    count::note_claim(-1);
}

#[inline(always)]
pub fn is_claimed(key: u64) -> bool {
    count::any_claims() && CLAIMS.get_ptr(key).is_some()
}

/// Ends the entry of an earlier socket, whose end was missed, for the one that lives at its address now. `is_its`
/// knows the latter's own. False if another CPU is about to do the same: the next packet or walk tries again.
#[inline(always)]
pub fn make_room(key: u64, is_its: impl Fn(&Connection) -> bool) -> bool {
    if !claim(key) {
        return false;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: a live map value; if it is not this socket's, nobody else writes to it under the claim.
        let connection = unsafe { &mut *connection };
        if !is_its(connection) {
            count::note(Stat::StaleHealed);
            end_unseen(key, connection);
        }
    }
    unclaim(key);
    true
}

/// Ends a connection whose CLOSE may have been missed.
#[inline(always)]
fn end_unseen(key: u64, connection: &mut Connection) {
    if connection.state != state::CLOSE {
        close_unseen(connection);
    }
    end(key, connection);
}

/// A CLOSE was missed; its time is when that was noticed.
#[inline(always)]
fn close_unseen(connection: &mut Connection) {
    connection.flags |= flag::CLOSE_MISSED;
    connection.closed_ns = now();
    if connection.state == state::ESTABLISHED {
        connection.left_established_ns = connection.closed_ns;
    }
}

/// An entry whose socket the walk `walk` no longer met: it ended without an event. Returns the state
/// it was in, `None` if the entry is another's by now.
///
/// A closed socket is in no table of the kernel, but a process may still hold it, or it waits in the
/// accept queue. Where releases are seen, its entry stays until then.
#[inline(always)]
pub fn forget(key: u64, cookie: u64, walk: u32, releases_are_seen: bool) -> Option<u8> {
    if !claim(key) {
        return None; // the next walk tries again
    }
    let state = forget_claimed(key, cookie, walk, releases_are_seen);
    unclaim(key);
    state
}

#[inline(always)]
fn forget_claimed(key: u64, cookie: u64, walk: u32, releases_are_seen: bool) -> Option<u8> {
    let connection = CONNECTIONS.get_ptr_mut(&key)?;
    // SAFETY: a live map value whose socket is gone.
    let connection = unsafe { &mut *connection };
    if connection.cookie != cookie || connection.walk >= walk {
        return None;
    }
    count::note(Stat::Forgotten);
    let state = connection.state;
    if releases_are_seen && connection.released == 0 && connection.flags & flag::LISTENER == 0 {
        if !may_be_accepted(connection) {
            connection.flags |= flag::FD_HELD_AT_CLOSE;
        }
        let place = Place::of(connection);
        close_unseen(connection);
        connection.state = state::CLOSE;
        place.leave();
        place.in_state(state::CLOSE).enter();
    } else {
        end_unseen(key, connection);
    }
    Some(state)
}

/// The socket is destroyed: nobody holds it any more. Also the second chance for a missed CLOSE.
#[inline(always)]
pub fn destroyed<const TYPED: bool>(sk: Sock<TYPED>) {
    let key = sk.address();
    let Some(connection) = CONNECTIONS.get_ptr_mut(&key) else { return };
    // SAFETY: a live map value; a socket that is being destroyed has no other events.
    let connection = unsafe { &mut *connection };
    let now = now();
    if connection.state == state::CLOSE {
        if connection.released != 0 || connection.flags & flag::FD_HELD_AT_CLOSE != 0 {
            connection.released_ns = now;
        }
    } else {
        cold_path();
        count::note(Stat::DestroyHealed);
        connection.flags |= flag::CLOSE_MISSED;
        close(sk, connection, now);
    }
    end(key, connection);
}

/// What is read of a connection when it is over, before its ports and totals go away.
#[inline(always)]
pub fn close<const TYPED: bool>(sk: Sock<TYPED>, connection: &mut Connection, now: u64) {
    connection.closed_ns = now;
    if connection.state == state::ESTABLISHED {
        connection.left_established_ns = now;
    }
    if counts_only() {
        return; // the rest is for its record
    }
    connection.error = sk.error();
    sk.read_totals(connection);
    if connection.local_port == 0 {
        connection.local_port = sk.source_port();
    }
}

/// Takes an entry out, out of the count as well, and hands its record on. Two may notice an end at once:
/// the one that removes the entry does all of this. From then on a softirq may take the entry's memory
/// for another socket, so everything is read before.
#[inline(always)]
pub fn end(key: u64, connection: &mut Connection) {
    let is_connection = connection.flags & flag::LISTENER == 0;
    let is_accepted = is_connection && connection.released != 0 && may_be_accepted(connection);
    if is_accepted {
        accept(connection);
    }
    let place = Place::of(connection);
    let is_recorded = is_connection && !counts_only();
    let record = if is_recorded { RECORDS.reserve::<Connection>(0) } else { None };
    let is_lost = is_recorded && record.is_none();
    if let Some(mut record) = record {
        // SAFETY: both are of this size. A helper's copy, since as many loads and stores would cost the
        // verifier much, in each of the places that this is inlined to.
        unsafe {
            bpf_probe_read_kernel(
                record.as_mut_ptr().cast(),
                size_of::<Connection>() as u32,
                (&raw const *connection).cast(),
            );
        }
        if CONNECTIONS.remove(key).is_err() {
            cold_path();
            record.discard(BPF_RB_NO_WAKEUP);
            return;
        }
        record.submit(BPF_RB_NO_WAKEUP);
        count::note(Stat::RecordsSubmitted);
    } else if CONNECTIONS.remove(key).is_err() {
        return;
    }
    if is_lost {
        cold_path();
        count::note(Stat::RecordsLost);
    }
    place.leave();
    if is_accepted {
        place.accepted();
    }
    if is_connection {
        place.closed();
    }
}
