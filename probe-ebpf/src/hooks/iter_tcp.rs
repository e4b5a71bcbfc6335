//! `iter/tcp`: walks the sockets of one network namespace. The first walk is the seed pass: it
//! follows the sockets that were there before the programs. Later walks note accepts, and make good
//! what events missed.
//!
//! The kernel shows each socket locked (5.10: under its bucket's lock, which CLOSE needs first), so
//! the state that is read here can't be passed by the event that changes it.

use probe_common::connection::flag;

use crate::{count, end, maps::CONNECTIONS, sock::Sock, track};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct IterTcp {
    meta: *const core::ffi::c_void,
    sk_common: *const core::ffi::c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn walk(ctx: *mut core::ffi::c_void) -> i32 {
    // SAFETY: the kernel calls `iter/tcp` programs with this struct.
    let pointer = unsafe { (*ctx.cast::<IterTcp>()).sk_common };
    if pointer.is_null() {
        return 0; // the end of the walk
    }
    let sk = Sock::new(pointer);
    let walk = count::walk();
    let cookie = sk.cookie();
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sk.address()) {
        // SAFETY: a live map value of a socket that is shown locked.
        let connection = unsafe { &mut *connection };
        if connection.cookie == 0 {
            connection.cookie = cookie;
        }
        if connection.cookie == cookie {
            connection.walk = walk;
            if connection.flags & flag::LISTENER != 0 {
                track::met_listener(connection);
            }
            track::catch_up(sk, sk.state(), connection);
            track::count_class(connection);
            track::note_accept(sk, connection);
            return 0;
        }
        // Another socket's: its end was missed, and the birth of this one.
        if !end::make_room(sk.address(), |connection| connection.cookie == cookie) {
            return 0;
        }
    }
    track::found(sk, cookie, walk > 0, &mut track::room());
    0
}
