//! First payloads on their way to userspace, which parses them in memory and forgets them.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use probe_common::{
    handshake::Pair,
    loss::Stat,
    payload::{LIMIT, PIECE, Payload},
};

use crate::{count, maps::RECORDS, packet::Packet};

const BPF_RB_NO_WAKEUP: u64 = 1;
/// Pieces that are taken of one packet.
const PIECES: u32 = (LIMIT as usize / PIECE) as u32;

/// Where a payload lies in its direction's stream, and how much of that is wanted.
#[derive(Clone, Copy)]
pub struct Span {
    pub offset: u32,
    pub limit: u32,
}

impl Span {
    #[inline(always)]
    pub const fn first(limit: u32) -> Self {
        Self { offset: 0, limit }
    }
}

/// Hands the payload of a packet to userspace, in pieces.
#[inline(always)]
pub fn hand_on(
    skb: *mut __sk_buff,
    packet: &Packet,
    pair: &Pair,
    span: Span,
    incoming: bool,
    role: u8,
    now: u64,
) {
    let Span { offset, limit } = span;
    let mut done = 0_u32;
    for _ in 0..PIECES {
        if done >= packet.payload_length || offset + done >= limit {
            return;
        }
        let Some(mut slot) = RECORDS.reserve::<Payload>(0) else {
            count::note(Stat::PayloadLost);
            return;
        };
        let piece = slot.as_mut_ptr();
        let length = (packet.payload_length - done).min(PIECE as u32);
        // SAFETY: the reserved piece is ours until it is submitted; every field that userspace
        // reads is written, and of `bytes` the first `length`.
        let result = unsafe {
            (*piece).tag = 0;
            (*piece).at_ns = now;
            (*piece).pair = *pair;
            (*piece).offset = offset + done;
            (*piece).length = length as u16;
            (*piece).incoming = u8::from(incoming);
            (*piece).role = role;
            load_into((&raw mut (*piece).bytes).cast(), skb, packet.payload_offset + done, length)
        };
        if result != 0 {
            slot.discard(BPF_RB_NO_WAKEUP);
            count::note(Stat::PayloadLost);
            return;
        }
        slot.submit(BPF_RB_NO_WAKEUP);
        done += length;
    }
}

/// The verifier wants to see the length's bounds right at the call.
///
/// # Safety
/// `target` has room for [`PIECE`] bytes.
#[inline(always)]
unsafe fn load_into(target: *mut u8, skb: *mut __sk_buff, offset: u32, length: u32) -> i64 {
    let less_one = length.wrapping_sub(1);
    // SAFETY: our own variable; volatile, so that the compiler can't prove the mask needless.
    let length =
        (unsafe { core::ptr::read_volatile(&raw const less_one) } & (PIECE as u32 - 1)) + 1;
    // SAFETY: as promised by the caller; the helper checks the packet's side.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, target.cast(), length) }
}
