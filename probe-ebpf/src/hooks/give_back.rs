//! Run by userspace as `forget` is, attached nowhere: gives a counter back. As a program, since that runs to its end also
//! where the agent is killed meanwhile: a counter is either somebody's or to be had, and no total is moved by half.

use aya_ebpf::{EbpfContext, bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};

use crate::{count, packet};

/// Packet: index of the counter, and of the one that its totals are added to, or one that there is not; 8 bytes each.
#[cgroup_skb(ingress)]
pub fn give_back(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let word = |index: u32| packet::load::<8>(skb, index * 8).map(u64::from_ne_bytes);
    if let (Some(index), Some(into)) = (word(0), word(1)) {
        count::give_back(index as u32, into as u32);
    }
    0
}
