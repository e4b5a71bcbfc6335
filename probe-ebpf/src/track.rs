//! Brings what is stored of a socket to what the kernel says of it. Idempotent: running twice for
//! one event, or not at all and then for the next, leaves the counters right (`docs/exactness.md`).

use core::hint::cold_path;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::bpf_get_current_cgroup_id,
    },
};
use probe_common::{
    connection::{Connection, class, flag},
    key::{CountKey, ListenerKey},
    loss::Stat,
    state::{self, role},
};

use crate::{
    count::{self, Place},
    end::{close, end, is_claimed, make_room},
    listener,
    maps::{CONNECTIONS, LISTENERS},
    sock::{Sock, counts_only},
};

const E2BIG: i32 = -7;
const EEXIST: i32 = -17;

/// A state change of `sk`, told by the kernel just before it stores the new state. Its ways meet again before
/// the work begins, so that the verifier walks that once.
#[inline(always)]
pub fn state_change(sk: Sock<true>, old: u8, new: u8) {
    let key = sk.address();
    let is_birth = (old == state::CLOSE && new != state::CLOSE)
        || (old == state::SYN_RECV && new == state::ESTABLISHED);
    let is_same = |connection: &Connection| {
        if is_birth {
            is_same_connection(sk, connection, old, new)
        } else {
            // A socket that was closed and is connected again: the first event of that was missed.
            (connection.state != state::CLOSE || new == state::CLOSE)
                && (connection.cookie == 0 || connection.cookie == sk.stored_cookie())
        }
    };
    let mut generation = 0;
    let mut entry = CONNECTIONS.get_ptr_mut(&key);
    if let Some(connection) = entry {
        // SAFETY: a live map value; this socket's events are serialised by its lock, and a copy of
        // this program that runs for the same event runs after, on the same CPU.
        let connection = unsafe { &mut *connection };
        if !is_same(connection) {
            cold_path();
            if connection.state == state::CLOSE && connection.cookie == sk.cookie() {
                generation = connection.generation + 1;
                end(key, connection);
            } else if !make_room(key, is_same) {
                return; // its next packet or a walk finds it
            }
            entry = None;
        }
    }
    if entry.is_none() {
        // Only TCP sockets have an entry, so the question can wait until here.
        if new == state::CLOSE || !sk.is_tcp() {
            return;
        }
        if !is_birth {
            // Its birth was missed: it is still in the old state, and what it is must be found out.
            cold_path();
            if count::walk() == 0 {
                return; // the seed pass will meet it
            }
            let mut missed = room();
            missed.generation = generation;
            found_late(sk.untyped(), sk.cookie(), &mut missed);
            entry = CONNECTIONS.get_ptr_mut(&key);
        }
        if entry.is_none() {
            if begin(sk, old, new, generation, is_birth) != Followed::Already {
                return;
            }
            entry = CONNECTIONS.get_ptr_mut(&key);
        }
    }
    if let Some(connection) = entry {
        // SAFETY: as above.
        let connection = unsafe { &mut *connection };
        if connection.state != old && connection.state != new {
            catch_up(sk, old, connection);
        }
        bring_to(sk, connection, new);
    }
}

/// An entry found at a birth is the same connection when this event was handled already (the second
/// copy of the program), or when a simultaneous open passes through SYN_RECV.
#[inline(always)]
fn is_same_connection<const TYPED: bool>(
    sk: Sock<TYPED>,
    connection: &Connection,
    old: u8,
    new: u8,
) -> bool {
    let continues = connection.state == new
        || (connection.state == old && old == state::SYN_RECV && connection.role == role::ACTIVE);
    continues && connection.cookie == sk.cookie()
}

/// How far a state is along a connection's life.
#[inline(always)]
fn rank(of: u8) -> u8 {
    match of {
        state::SYN_SENT | state::SYN_RECV | state::LISTEN => 1,
        state::ESTABLISHED => 2,
        state::FIN_WAIT_1 | state::CLOSE_WAIT => 3,
        state::FIN_WAIT_2 | state::CLOSING | state::LAST_ACK => 4,
        _ => 5,
    }
}

/// Counts a connection in the class that its packets told. Called with the socket's lock held.
#[inline(always)]
pub fn count_class(connection: &mut Connection) {
    let seen = connection.seen_class;
    if connection.class != seen {
        if connection.state == state::ESTABLISHED {
            count::change_class(connection, seen);
        }
        connection.class = seen;
    }
}

/// Makes good what no state change told: `sk` is seen under its lock in a state of which its entry
/// is short. Only ever forward: the state is stored after the event, so an entry may be ahead.
#[inline(always)]
pub fn catch_up<const TYPED: bool>(sk: Sock<TYPED>, seen: u8, connection: &mut Connection) {
    if seen != connection.state && rank(seen) > rank(connection.state) && seen != state::CLOSE {
        cold_path();
        count::note(Stat::CaughtUp);
        connection.flags |= flag::CAUGHT_UP;
        // A simultaneous open (SYN_RECV) may be closed without having been established.
        if connection.state == state::SYN_SENT || seen == state::ESTABLISHED {
            connection.flags |= flag::ESTABLISHED_UPPER_BOUND;
            bring_to(sk, connection, state::ESTABLISHED);
        }
        bring_to(sk, connection, seen);
    }
}

/// Room for an entry on the stack.
#[inline(always)]
pub fn room() -> Connection {
    // SAFETY: all-zero is a valid Connection.
    unsafe { core::mem::zeroed() }
}

/// Follows a socket whose birth was missed; nothing before the seed pass is over. That meets listeners
/// first, so that it can tell who opened a connection, and what comes by earlier can't.
#[inline(always)]
pub fn found_late(sk: Sock, cookie: u64, connection: &mut Connection) {
    if count::walk() > 0 {
        found(sk, cookie, true, connection);
    }
}

/// Follows a socket that no event has shown: it was there before the programs (the seed pass), or
/// its birth was missed. `sk` is seen under its lock, by the walk, or at a packet that proves that its
/// birth was missed. `connection` is zeroed room to build its entry in.
#[inline(always)]
pub fn found(sk: Sock, cookie: u64, late: bool, connection: &mut Connection) {
    let seen = sk.state();
    // Mini sockets and passive children that are not established are not counted; CLOSE is over.
    if matches!(seen, state::TIME_WAIT | state::NEW_SYN_RECV | state::SYN_RECV | state::CLOSE) {
        return;
    }
    let now = now();
    connection.cookie = cookie;
    connection.state = seen;
    connection.class = class::UNKNOWN;
    connection.seen_class = class::UNKNOWN;
    connection.first_seen_ns = now;
    connection.flags = if late { flag::CAUGHT_UP } else { flag::SEEDED };
    sk.read_owner(connection);
    connection.role = role_of(sk, connection.netns, seen);
    connection.walk = count::walk();
    if seen == state::LISTEN {
        connection.flags |= flag::LISTENER;
    }
    // At its SYN a connection is found before it is established; that event will be told.
    let is_established = rank(seen) >= rank(state::ESTABLISHED);
    if late && is_established {
        connection.flags |= flag::ESTABLISHED_UPPER_BOUND;
        connection.established_ns = now;
    }
    let is_accepted =
        connection.role == role::PASSIVE && seen != state::LISTEN && sk.has_descriptor();
    if is_accepted {
        connection.flags |= flag::ACCEPTED | flag::ACCEPTED_UPPER_BOUND;
        connection.accepted_ns = now;
    }
    // Where it is followed already nothing is brought up to date: a packet that is received sees the
    // socket without its lock, and two that change an entry's state at once would count it twice.
    if follow(sk, connection) == Followed::New && late {
        count::note(Stat::FoundLate);
        if is_established {
            Place::of(connection).established();
        }
        if is_accepted {
            Place::of(connection).accepted();
        }
    }
}

#[inline(always)]
fn listener_key(netns: u32, port: u16) -> ListenerKey {
    ListenerKey { netns, port, pad: 0 }
}

#[inline(always)]
fn note_listener(key: ListenerKey) {
    let _ = LISTENERS.insert(key, count::walk(), 0);
}

/// A walk met a listener that is known.
#[inline(always)]
pub fn met_listener(connection: &Connection) {
    note_listener(listener_key(connection.netns, connection.local_port));
}

/// The kernel does not record how a socket was opened. Listeners come first in a walk.
#[inline(always)]
fn role_of(sk: Sock, netns: u32, seen: u8) -> u8 {
    let key = listener_key(netns, sk.local_port());
    if seen == state::LISTEN {
        note_listener(key);
        return role::PASSIVE;
    }
    if seen == state::SYN_SENT || sk.bound_by_connect() {
        return role::ACTIVE;
    }
    // SAFETY: the value is not read.
    if unsafe { LISTENERS.get(key) }.is_some() { role::PASSIVE } else { role::UNKNOWN }
}

#[inline(always)]
fn bring_to<const TYPED: bool>(sk: Sock<TYPED>, connection: &mut Connection, new: u8) {
    if connection.state == new {
        return;
    }
    let is_timed =
        new == state::ESTABLISHED || new == state::CLOSE || connection.state == state::ESTABLISHED;
    let now = if is_timed { now() } else { 0 };
    note_accept(sk, connection);
    count_class(connection);
    match new {
        state::ESTABLISHED => {
            sk.read_addresses(connection);
            connection.established_ns = now;
            Place::of(connection).established();
        }
        state::CLOSE_WAIT => note_first_fin(connection, flag::REMOTE_FIN_FIRST),
        state::FIN_WAIT_1 => note_first_fin(connection, flag::LOCAL_FIN_FIRST),
        state::CLOSE => {
            close(sk, connection, now);
            if sk.has_descriptor() {
                connection.flags |= flag::FD_HELD_AT_CLOSE;
            } else if connection.released != 0 || !may_be_accepted(connection) {
                end(sk.address(), connection);
                return;
            }
            // Else it was reset in the accept queue, where it stays: `accept` returns it all the same.
        }
        _ => {}
    }
    // Read once: should the entry be taken out meanwhile, its memory is another socket's.
    let place = Place::of(connection);
    if connection.state == state::ESTABLISHED {
        connection.left_established_ns = now;
    }
    connection.state = new;
    place.leave();
    place.in_state(new).enter();
}

#[inline(always)]
fn note_first_fin(connection: &mut Connection, whose: u32) {
    if connection.flags & (flag::REMOTE_FIN_FIRST | flag::LOCAL_FIN_FIRST) == 0 {
        connection.flags |= whose;
    }
}

/// `sk_socket` set means that a process has accepted the socket, at the latest now.
#[inline(always)]
pub fn note_accept<const TYPED: bool>(sk: Sock<TYPED>, connection: &mut Connection) {
    if may_be_accepted(connection) && sk.has_descriptor() {
        accept(connection);
        Place::of(connection).accepted();
    }
}

#[inline(always)]
pub fn may_be_accepted(connection: &Connection) -> bool {
    connection.role == role::PASSIVE
        && connection.flags & flag::ACCEPTED == 0
        && connection.state != state::LISTEN
}

#[inline(always)]
pub fn accept(connection: &mut Connection) {
    connection.flags |= flag::ACCEPTED;
    // Else `accept` itself was seen.
    if connection.accepted_ns == 0 {
        connection.flags |= flag::ACCEPTED_UPPER_BOUND;
        connection.accepted_ns = now();
    }
}

/// Starts to follow a socket at its first event, or at a later one that `found` says nothing of.
#[inline(always)]
fn begin(sk: Sock<true>, old: u8, new: u8, generation: u32, is_birth: bool) -> Followed {
    let mut connection = room();
    // First of all, before what follows makes many paths of one.
    sk.read_owner(&mut connection);
    let now = now();
    connection.cookie = sk.cookie();
    connection.generation = generation;
    connection.state = new;
    connection.class = class::SILENT;
    connection.seen_class = class::SILENT;
    connection.first_seen_ns = now;
    connection.role = match (old, new) {
        (state::CLOSE, state::LISTEN) | (state::SYN_RECV, _) => role::PASSIVE,
        (_, state::SYN_SENT) | (state::SYN_SENT, _) => role::ACTIVE,
        _ => role::UNKNOWN,
    };
    if new == state::SYN_SENT && !counts_only() {
        // `connect` runs in the task that called it; no other state change is sure to.
        connection.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        connection.comm = bpf_get_current_comm().unwrap_or_default();
        // SAFETY: a helper without arguments.
        connection.task_cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    if !is_birth {
        connection.flags |= flag::CAUGHT_UP;
    }
    connection.walk = count::walk();
    if connection.walk == 0 {
        // The packet hooks may not be attached yet: its first bytes may have passed unseen.
        connection.flags |= flag::SEEDED;
    }
    if connection.walk == 0 || counts_only() {
        connection.class = class::UNKNOWN;
        connection.seen_class = class::UNKNOWN;
    }
    match new {
        state::ESTABLISHED => connection.established_ns = now,
        state::LISTEN => {
            connection.flags |= flag::LISTENER;
            // For children whose birth is missed.
            note_listener(listener_key(connection.netns, sk.local_port()));
        }
        _ => {}
    }
    let followed = follow(sk, &mut connection);
    if followed == Followed::New && new == state::ESTABLISHED {
        Place::of(&connection).established();
    }
    followed
}

/// What became of a connection that was to be followed.
#[derive(PartialEq, Eq)]
enum Followed {
    New,
    /// It was found on another CPU meanwhile.
    Already,
    /// There is no room for it, or not yet.
    Not,
}

/// Reads the rest of a new connection, finds its counters, and inserts it if it is absent.
#[inline(always)]
fn follow<const TYPED: bool>(sk: Sock<TYPED>, connection: &mut Connection) -> Followed {
    if is_claimed(sk.address()) {
        cold_path();
        return Followed::Not; // its next packet or a walk finds it
    }
    connection.sk = sk.address();
    sk.read_addresses(connection);
    if connection.role == role::PASSIVE && !counts_only() {
        // Also one that the seed pass meets: what is left behind would be an attempt of its own.
        listener::take_over(connection);
    }
    if connection.cgroup_id == 0 {
        count::note(Stat::CgroupUnknown);
    }
    if connection.state == state::SYN_SENT {
        // Not chosen yet, or left over from an earlier connection on this socket.
        connection.local_port = 0;
    }
    let mut key = CountKey {
        cgroup_id: connection.cgroup_id,
        netns: connection.netns,
        port: service_port(connection),
        role: connection.role,
        ready: 0,
    };
    connection.slot = count::slot_of(&mut key).unwrap_or(Connection::NO_SLOT);
    match CONNECTIONS.insert(sk.address(), &*connection, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            Place::of(connection).enter();
            Followed::New
        }
        Err(EEXIST) => {
            cold_path();
            Followed::Already
        }
        Err(E2BIG) => {
            cold_path();
            note_not_counted(Stat::ConnectionMapFull, connection);
            Followed::Not
        }
        Err(_) => {
            cold_path();
            note_not_counted(Stat::ConnectionInsertFailed, connection);
            Followed::Not
        }
    }
}

/// Counts connections, not attempts: the next packets and walks try again, and note it only where nobody has.
#[inline(always)]
fn note_not_counted(stat: Stat, connection: &Connection) {
    if connection.flags & flag::CAUGHT_UP == 0 || count::statistic(stat) == 0 {
        count::note(stat);
    }
}

#[inline(always)]
fn service_port(connection: &Connection) -> u16 {
    if connection.role == role::ACTIVE { connection.remote_port } else { connection.local_port }
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
