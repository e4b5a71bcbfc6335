//! `tp_btf/tcp_receive_reset` and `tp_btf/tcp_send_reset`: who ended a connection with a RST.
//! `sk_err` alone can't tell, since an abort sets `ECONNRESET` on its own side too. A reset that
//! answers a SYN without a socket tells that nobody listens on its port.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use probe_common::connection::flag;

use crate::{
    listener,
    maps::CONNECTIONS,
    sock::{Sock, pair_of_stray_syn},
};

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset(ctx: BtfTracePointContext) -> i32 {
    mark(Sock::new(ctx.arg(0)), flag::RST_RECEIVED)
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::new(ctx.arg(0));
    let skb = ctx.arg::<*const u8>(1);
    if sk.address() == 0
        && !skb.is_null()
        && let Some(pair) = pair_of_stray_syn(skb)
    {
        listener::no_listener(&pair);
    }
    mark(sk, flag::RST_SENT)
}

#[inline(always)]
fn mark(sk: Sock, bit: u32) -> i32 {
    // A reset for no socket comes with NULL, which is in no map.
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sk.address()) {
        // SAFETY: a live map value. Both hooks run under the socket's lock, as state changes do.
        unsafe { (*connection).flags |= bit };
    }
    0
}
