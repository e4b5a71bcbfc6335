//! First payloads on their way to userspace, which parses them in memory and forgets them.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use probe_common::{
    loss::Stat,
    payload::{LIMIT, PIECE, Payload, Piece, SMALL},
};

use crate::{count, maps::RECORDS, packet::Packet};

const BPF_RB_NO_WAKEUP: u64 = 1;
/// Pieces that are taken of one packet.
const PIECES: u32 = (LIMIT as usize / PIECE) as u32;

/// Hands `wanted` bytes of a packet's payload to userspace, in pieces. `first` describes them all, from
/// its offset on.
#[inline(always)]
pub fn hand_on(skb: *mut __sk_buff, packet: &Packet, first: &Piece, wanted: u32) {
    let mut done = 0_u32;
    for _ in 0..PIECES {
        let left = wanted.saturating_sub(done);
        if left == 0 {
            return;
        }
        if left <= SMALL as u32 {
            copy::<SMALL>(skb, packet, first, done, left);
            return;
        }
        let length = left.min(PIECE as u32);
        if !copy::<PIECE>(skb, packet, first, done, length) {
            return;
        }
        done += length;
    }
}

/// Hands on `length` bytes, at most `N`, that lie `done` bytes after the first. False if they are lost.
#[inline(always)]
fn copy<const N: usize>(
    skb: *mut __sk_buff,
    packet: &Packet,
    first: &Piece,
    done: u32,
    length: u32,
) -> bool {
    let Some(mut slot) = RECORDS.reserve::<Payload<N>>(0) else {
        count::note(Stat::PayloadLost);
        return false;
    };
    let payload = slot.as_mut_ptr();
    // SAFETY: the reserved place is ours until it is submitted; all of `piece` is written, and of `bytes`
    // the first `length`.
    let result = unsafe {
        (*payload).piece = *first;
        (*payload).piece.offset = first.offset + done;
        (*payload).piece.length = length as u16;
        load_into::<N>(
            (&raw mut (*payload).bytes).cast(),
            skb,
            packet.payload_offset + done,
            length,
        )
    };
    if result != 0 {
        slot.discard(BPF_RB_NO_WAKEUP);
        count::note(Stat::PayloadLost);
        return false;
    }
    slot.submit(BPF_RB_NO_WAKEUP);
    true
}

/// The verifier wants to see the length's bounds right at the call.
///
/// # Safety
/// `target` has room for `N` bytes.
#[inline(always)]
unsafe fn load_into<const N: usize>(
    target: *mut u8,
    skb: *mut __sk_buff,
    offset: u32,
    length: u32,
) -> i64 {
    let less_one = length.wrapping_sub(1);
    // SAFETY: our own variable; volatile, so that the compiler can't prove the bound needless.
    let less_one = unsafe { core::ptr::read_volatile(&raw const less_one) };
    if less_one >= N as u32 {
        return -1;
    }
    let length = less_one + 1;
    // SAFETY: as promised by the caller; the helper checks the packet's side.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, target.cast(), length) }
}
