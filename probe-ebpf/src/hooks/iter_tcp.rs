//! `iter/tcp`: walks the sockets of one network namespace. Follows those that are not followed yet
//! (they were there before the programs), and notes accepts of those that are.
//!
//! The kernel shows each socket locked (5.10: under its bucket's lock, which CLOSE needs first), so
//! the state that is read here can't be passed by the event that changes it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use probe_common::{
    connection::{Connection, class, flag},
    key::ListenerKey,
    state::{self, role},
};

use crate::{
    maps::{CONNECTIONS, LISTENERS},
    sock::Sock,
    track,
};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct IterTcp {
    meta: *const core::ffi::c_void,
    sk_common: *const core::ffi::c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn seed(ctx: *mut core::ffi::c_void) -> i32 {
    // SAFETY: the kernel calls `iter/tcp` programs with this struct.
    let pointer = unsafe { (*ctx.cast::<IterTcp>()).sk_common };
    if pointer.is_null() {
        return 0; // the end of the walk
    }
    let sk = Sock::new(pointer);
    let now = sk.state();
    // Mini sockets and passive children are not counted; CLOSE is over.
    if matches!(now, state::TIME_WAIT | state::NEW_SYN_RECV | state::SYN_RECV | state::CLOSE)
        || !sk.is_tcp()
    {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sk.address()) {
        // SAFETY: a live map value of a socket that is shown locked.
        track::note_accept(sk, unsafe { &mut *connection }, at);
        return 0;
    }
    // SAFETY: all-zero is a valid Connection.
    let mut connection: Connection = unsafe { core::mem::zeroed() };
    connection.cookie = sk.stored_cookie();
    connection.state = now;
    connection.class = class::UNKNOWN;
    connection.first_seen_ns = at;
    connection.flags = flag::SEEDED;
    if now == state::LISTEN {
        connection.flags |= flag::LISTENER;
    }
    connection.role = role_of(sk, now);
    if connection.role == role::PASSIVE && now != state::LISTEN && sk.has_descriptor() {
        connection.flags |= flag::ACCEPTED | flag::ACCEPTED_UPPER_BOUND;
        connection.accepted_ns = at;
    }
    track::follow(sk, &mut connection);
    0
}

/// The kernel does not record how a socket was opened. Listeners come first in the walk.
#[inline(always)]
fn role_of(sk: Sock, now: u8) -> u8 {
    let key = ListenerKey { netns: sk.netns(), port: sk.local_port(), pad: 0 };
    if now == state::LISTEN {
        let _ = LISTENERS.insert(key, 1, 0);
        return role::PASSIVE;
    }
    if now == state::SYN_SENT {
        return role::ACTIVE;
    }
    // SAFETY: the value is not read.
    if unsafe { LISTENERS.get(key) }.is_some() {
        return role::PASSIVE;
    }
    if sk.bound_by_connect() { role::ACTIVE } else { role::UNKNOWN }
}
