//! `cgroup_skb/ingress` at the cgroup2 root: every packet that a socket receives, before its sequence
//! numbers are checked and without the socket's lock. SYNs, last ACKs and data that comes with them
//! run on the listener. A connection that sends nothing shows itself here, should its birth be missed.

use core::hint::cold_path;

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_get_socket_cookie,
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use probe_common::connection::flag;

use crate::{
    end, listener,
    maps::{CONNECTIONS, SCRATCH},
    packet,
    sock::Sock,
    stage, track,
};

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
    // SAFETY: a field that the verifier knows of every socket.
    let remote_port = u16::from_be(unsafe { (*socket).dst_port } as u16);
    let mut entry = CONNECTIONS.get_ptr_mut(socket as u64);
    // SAFETY: a live map value.
    if !entry.is_some_and(|connection| unsafe { (*connection).remote_port } == remote_port) {
        cold_path();
        if !adopt(skb, socket) {
            return PASS;
        }
        entry = CONNECTIONS.get_ptr_mut(socket as u64);
    }
    if let Some(connection) = entry {
        // SAFETY: a live map value; what is written here is written nowhere under the lock.
        let connection = unsafe { &mut *connection };
        if connection.flags & flag::LISTENER != 0 {
            listener::on_packet(skb, connection, true);
        } else {
            stage::on_connection(skb, connection, true);
        }
    }
    PASS
}

/// Follows a socket whose birth was missed; false if this packet does not prove that it was. Without the
/// lock it may be that its CLOSE was told a moment ago. But a birth that was told has taken its
/// handshake with it.
#[inline(always)]
fn adopt(skb: *mut __sk_buff, socket: *mut bpf_sock) -> bool {
    if let Some(sk) = Sock::of_packet(socket)
        && let Some(packet) = packet::parse(skb)
        && let Some(pair) = packet::pair(skb, &packet, sk.netns(), true)
        && listener::has_handshake(&pair)
        && let Some(scratch) = SCRATCH.get_ptr_mut(0)
    {
        // SAFETY: a field that the verifier knows of every socket.
        let remote_port = u16::from_be(unsafe { (*socket).dst_port } as u16);
        if !end::make_room(socket as u64, |connection| connection.remote_port == remote_port) {
            return false; // its next packet comes by as well
        }
        // SAFETY: the context that this helper asks for.
        let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
        // SAFETY: this CPU's, and packets are not received while one is being received.
        let scratch = unsafe { &mut *scratch };
        *scratch = track::room();
        track::found_late(sk, cookie, scratch);
        return true;
    }
    false
}
