//! Run by userspace through `BPF_PROG_TEST_RUN`, attached nowhere: ends the entry of a connection that
//! a walk no longer met, with the same code that ends every other connection.
//!
//! A packet program, its arguments being the packet: before 6.1 the kernel warns of raw tracepoints
//! that use maps without preallocation.

use aya_ebpf::{EbpfContext, bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use aya_log_ebpf::warn;

use crate::{end, packet};

/// Packet: key (the socket's address), cookie, number of the walk, and 1 if `sock_release` is attached;
/// 8 bytes each.
#[cgroup_skb(ingress)]
pub fn forget(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let word = |index: u32| packet::load::<8>(skb, index * 8).map(u64::from_ne_bytes);
    let (Some(key), Some(cookie), Some(walk), Some(releases)) =
        (word(0), word(1), word(2), word(3))
    else {
        return 0;
    };
    if let Some(state) = end::forget(key, cookie, walk as u32, releases == 1) {
        warn!(&ctx, "socket {:x} ended unseen in state {}", cookie, state);
    }
    0
}
