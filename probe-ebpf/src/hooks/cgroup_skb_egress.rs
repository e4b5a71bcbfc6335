//! `cgroup_skb/egress` at the cgroup2 root: every packet that a socket sends, under the socket's
//! lock, right after the state change that caused it. Unlike tracing programs, cgroup programs are
//! never skipped, so this is where a missed state change is noticed and made good. Also the SYN-ACK, and
//! the first bytes that the host sends.

use core::hint::cold_path;

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_get_socket_cookie,
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use probe_common::{connection::flag, state};

use crate::{
    end, listener,
    maps::{CONNECTIONS, ROOMS, ZERO},
    sock::{Sock, counts_only},
    stage, track,
};

/// Let the packet pass. Anything else would drop it.
const PASS: i32 = 1;

#[cgroup_skb(egress)]
#[inline(always)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context of a cgroup_skb program; the verifier turns this into a checked load.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return PASS;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(socket as u64) {
        // SAFETY: a live map value; the sender holds the socket's lock.
        let connection = unsafe { &mut *connection };
        // SAFETY: a field that the verifier knows of every socket.
        let remote_port = u16::from_be(unsafe { (*socket).dst_port } as u16);
        if connection.remote_port == remote_port {
            if connection.flags & flag::LISTENER != 0 {
                if !counts_only() {
                    listener::on_packet(skb, connection, false);
                }
                return PASS;
            }
            let sk = Sock::new(connection.sk as *const _);
            // SAFETY: as `dst_port`; a plain load where `Sock` would have to copy.
            let state = unsafe { (*socket).state } as u8;
            track::catch_up(sk, state, connection);
            if connection.flags & flag::ACCEPTED == 0 {
                track::note_accept(sk, connection);
            }
            if !counts_only() {
                stage::on_connection(skb, connection, false);
                track::count_class(connection);
            }
            return PASS;
        }
        cold_path();
        if !end::make_room(socket as u64, |connection| connection.remote_port == remote_port) {
            return PASS;
        }
    }
    cold_path();
    adopt(skb, socket);
    PASS
}

/// Follows a socket whose birth was missed.
#[inline(always)]
fn adopt(skb: *mut __sk_buff, socket: *mut bpf_sock) {
    let Some(sk) = Sock::of_packet(socket) else { return };
    if sk.state() == state::SYN_RECV {
        if !counts_only() {
            listener::on_fast_open(skb, sk.netns());
        }
        return;
    }
    let (key, Some(zero)) = (socket as u64, ZERO.get(0)) else { return };
    if ROOMS.insert(&key, zero, 0).is_err() {
        return; // its next packet comes by as well
    }
    if let Some(room) = ROOMS.get_ptr_mut(&key) {
        // SAFETY: the context that this helper asks for.
        let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
        // SAFETY: this socket's, whose lock the sender holds.
        track::found_late(sk, cookie, unsafe { &mut *room });
    }
    let _ = ROOMS.remove(&key);
}
