//! Reads IP and TCP headers of a `cgroup_skb` packet, which starts at its network header and need not
//! be linear.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use probe_common::handshake::Pair;

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const IPPROTO_TCP: u8 = 6;
/// An IPv4 header without options.
const PLAIN_V4: usize = 20;
/// Of a TCP header, up to its flags.
const TCP_FRONT: usize = 14;
/// Extension headers that are followed; hosts send at most a few.
const EXTENSIONS: u32 = 6;

/// Where things are in a TCP packet.
#[derive(Clone, Copy)]
pub struct Packet {
    pub tcp_offset: u32,
    pub payload_offset: u32,
    pub payload_length: u32,
    pub sequence: u32,
    pub flags: u8,
    pub is_v6: bool,
}

impl Packet {
    /// Sequence number of the first payload byte; a SYN takes one itself.
    #[inline(always)]
    pub fn first_byte(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(self.flags & SYN != 0))
    }
}

/// `N` bytes at `offset`.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    load_into(skb, offset, &mut bytes).then_some(bytes)
}

/// The same, to where they are kept. False, and zeroes, if the packet ends before.
#[inline(always)]
pub fn load_into<const N: usize>(skb: *mut __sk_buff, offset: u32, bytes: &mut [u8; N]) -> bool {
    // SAFETY: the helper checks the range against the packet and writes N bytes to our array.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) == 0 }
}

#[inline(always)]
pub fn parse(skb: *mut __sk_buff) -> Option<Packet> {
    // Most packets are IPv4 without options: one copy has all that is asked of them.
    let front = load::<{ PLAIN_V4 + TCP_FRONT }>(skb, 0)?;
    let first = front[0];
    let is_v6 = first >> 4 == 6;
    if !is_v6 && front[9] != IPPROTO_TCP {
        return None;
    }
    let mut tcp = [0; TCP_FRONT];
    let tcp_offset = if is_v6 { skip_extensions(skb)? } else { u32::from(first & 0xf) * 4 };
    if is_v6 || tcp_offset != PLAIN_V4 as u32 {
        tcp = load(skb, tcp_offset)?;
    } else {
        tcp.copy_from_slice(&front[PLAIN_V4..]);
    }
    let payload_offset = tcp_offset + u32::from(tcp[12] >> 4) * 4;
    // SAFETY: a field of the context.
    let length = unsafe { (*skb).len };
    Some(Packet {
        tcp_offset,
        payload_offset,
        payload_length: length.saturating_sub(payload_offset),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        flags: tcp[13],
        is_v6,
    })
}

/// Offset of the TCP header behind IPv6 and its extension headers.
#[inline(always)]
fn skip_extensions(skb: *mut __sk_buff) -> Option<u32> {
    let [mut next] = load::<1>(skb, 6)?;
    let mut offset = 40_u32;
    for _ in 0..EXTENSIONS {
        match next {
            IPPROTO_TCP => return Some(offset),
            // Hop-by-hop, routing, destination options: length in units of 8 bytes, less the first.
            0 | 43 | 60 => {
                let [following, length] = load::<2>(skb, offset)?;
                next = following;
                offset += (u32::from(length) + 1) * 8;
            }
            _ => return None,
        }
    }
    None
}

/// The address pair as this host sees it. Used for packets of listeners only.
#[inline(always)]
pub fn pair(skb: *mut __sk_buff, packet: &Packet, netns: u32, incoming: bool) -> Option<Pair> {
    let ports = load::<4>(skb, packet.tcp_offset)?;
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let mut source = [0_u8; 16];
    let mut destination = [0_u8; 16];
    if packet.is_v6 {
        source = load::<16>(skb, 8)?;
        destination = load::<16>(skb, 24)?;
    } else {
        let addresses = load::<8>(skb, 12)?;
        source[10] = 0xff;
        source[11] = 0xff;
        source[12..16].copy_from_slice(&addresses[..4]);
        destination[10] = 0xff;
        destination[11] = 0xff;
        destination[12..16].copy_from_slice(&addresses[4..]);
    }
    let (local_address, remote_address, local_port, remote_port) = if incoming {
        (destination, source, destination_port, source_port)
    } else {
        (source, destination, source_port, destination_port)
    };
    Some(Pair { local_address, remote_address, netns, local_port, remote_port })
}
