//! `tp_btf/inet_sock_set_state`: every state change of every TCP socket, told just before the new
//! state is stored.
//!
//! The kernel skips a tracing program that is already running on this CPU, so the softirq event that
//! interrupts one in process context would be lost. Two copies are attached: nesting is at most two
//! deep, so one of them runs for every event. The first tells the second, which runs right after it,
//! that its work is done; handling an event twice would change nothing, but take longer.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use probe_common::state;

use crate::{
    maps::{HANDLED, Handled},
    sock::Sock,
    track,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
#[inline(always)]
pub fn set_state_1(ctx: BtfTracePointContext) -> i32 {
    let Some(handled) = HANDLED.get_ptr_mut(0) else { return 0 };
    // Nothing is handled while this runs: the second copy must handle what interrupts here.
    // SAFETY: a live map value of this CPU, here and below; volatile, since an interrupt reads it.
    unsafe { handled.write_volatile(Handled::NOTHING) };
    set_state(&ctx);
    // SAFETY: as above.
    unsafe { handled.write_volatile(event(&ctx)) };
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
#[inline(always)]
pub fn set_state_2(ctx: BtfTracePointContext) -> i32 {
    let Some(handled) = HANDLED.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    if unsafe { handled.read_volatile() } != event(&ctx) {
        set_state(&ctx);
    }
    // What interrupted this copy, which was not run for that, has left its own mark.
    // SAFETY: as above.
    unsafe { handled.write_volatile(Handled::NOTHING) };
    0
}

#[inline(always)]
fn event(ctx: &BtfTracePointContext) -> Handled {
    let sk: *const core::ffi::c_void = ctx.arg(0);
    Handled { sk: sk as u64, new: ctx.arg::<i32>(2) as u64 }
}

#[inline(always)]
fn set_state(ctx: &BtfTracePointContext) {
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    // A passive child is counted from ESTABLISHED on: before 6.8 its cookie and addresses are still
    // the listener's here, and it may be freed without another event.
    if old == state::LISTEN && new == state::SYN_RECV {
        return;
    }
    track::state_change(Sock::argument(ctx.arg(0)), old, new);
}
