//! `cgroup/sock_release` at the cgroup2 root: the last descriptor of a socket is closed. A cgroup
//! program is never skipped, so this is where an accept shows itself at the latest, and a reset whose
//! CLOSE no tracing program saw.

use aya_ebpf::{EbpfContext, macros::cgroup_sock, programs::SockContext};
use probe_common::state;

use crate::{end, maps::CONNECTIONS, sock::Sock};

/// The result is not looked at.
const PASS: i32 = 1;

#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    if let Some(connection) = CONNECTIONS.get_ptr_mut(ctx.as_ptr() as u64) {
        // SAFETY: a live map value.
        let connection = unsafe { &mut *connection };
        connection.released = 1;
        let sk = Sock::new(connection.sk as *const _);
        // Without the lock: any other state may change right now, and its change is told.
        if sk.state() == state::CLOSE {
            end::destroyed(sk);
        }
    }
    PASS
}
