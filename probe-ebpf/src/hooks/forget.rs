//! Run by userspace through `BPF_PROG_TEST_RUN`, attached nowhere: ends the entry of a connection that
//! a walk no longer met, with the same code that ends every other connection.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};

use aya_log_ebpf::warn;

use crate::track;

/// Arguments: key (the socket's address), cookie, number of the walk, and 1 if `sock_release` is attached.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn forget(ctx: RawTracePointContext) -> i32 {
    let arguments: *const u64 = ctx.as_ptr().cast();
    // SAFETY: userspace passes four words, which is what the kernel hands on as the context.
    let (key, cookie, walk, releases_are_seen) = unsafe {
        (*arguments, *arguments.add(1), *arguments.add(2) as u32, *arguments.add(3) == 1)
    };
    if let Some(state) = track::forget(key, cookie, walk, releases_are_seen) {
        warn!(&ctx, "socket {:x} ended unseen in state {}", cookie, state);
    }
    0
}
