//! `cgroup_skb/ingress` at the cgroup2 root: every packet that a socket receives, before its sequence
//! numbers are checked and without the socket's lock. SYNs, last ACKs and data that comes with them
//! run on the listener.

use aya_ebpf::{EbpfContext, bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use probe_common::connection::flag;

use crate::{maps::CONNECTIONS, stage};

/// Let the packet pass. Anything else would drop it.
const PASS: i32 = 1;

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context of a cgroup_skb program; the verifier turns this into a checked load.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return PASS;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(socket as u64) {
        // SAFETY: a live map value; what is written here is written nowhere under the lock.
        let connection = unsafe { &mut *connection };
        if connection.flags & flag::LISTENER != 0 {
            stage::on_listener(skb, connection, true);
        } else {
            stage::on_connection(skb, connection, true);
        }
    }
    PASS
}
