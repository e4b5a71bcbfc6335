//! `tp_btf/inet_sock_set_state`: every state change of every TCP socket, told just before the new
//! state is stored.
//!
//! The kernel skips a tracing program that is already running on this CPU, so the softirq event that
//! interrupts one in process context would be lost. Two copies are attached: nesting is at most two
//! deep, so one of them runs for every event, and the second finds its work done.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use probe_common::state;

use crate::{sock::Sock, track};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_1(ctx: BtfTracePointContext) -> i32 {
    set_state(&ctx)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_2(ctx: BtfTracePointContext) -> i32 {
    set_state(&ctx)
}

#[inline(always)]
fn set_state(ctx: &BtfTracePointContext) -> i32 {
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    // A passive child is counted from ESTABLISHED on: before 6.8 its cookie and addresses are still
    // the listener's here, and it may be freed without another event.
    if old == state::LISTEN && new == state::SYN_RECV {
        return 0;
    }
    track::state_change(Sock::argument(ctx.arg(0)), old, new);
    0
}
