//! Run by userspace as `forget` is, attached nowhere: gives a counter back. As a program, since that runs to its end also
//! where the agent is killed meanwhile: a counter is either somebody's or to be had, and no total is moved by half.

use aya_ebpf::{EbpfContext, bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};

use crate::{count, packet};

/// Packet: index of the counter in the lower half of 8 bytes; in the upper, that of the one that its totals are added to,
/// or one that there is not.
#[cgroup_skb(ingress)]
pub fn give_back(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    if let Some(word) = packet::load::<8>(skb, 0).map(u64::from_ne_bytes) {
        count::give_back(word as u32, (word >> 32) as u32);
    }
    0
}
