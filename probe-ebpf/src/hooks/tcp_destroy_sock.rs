//! `tp_btf/tcp_destroy_sock`: the last moment of a socket, after CLOSE and after the last descriptor
//! went. Ends what CLOSE left counted (a process held the descriptor), and heals a CLOSE that no
//! copy saw. Two copies, for the reason given in `inet_sock_set_state`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{end, sock::Sock};

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_sock_1(ctx: BtfTracePointContext) -> i32 {
    end::destroyed(Sock::argument(ctx.arg(0)));
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_sock_2(ctx: BtfTracePointContext) -> i32 {
    end::destroyed(Sock::argument(ctx.arg(0)));
    0
}
