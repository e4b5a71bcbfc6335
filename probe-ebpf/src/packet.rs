//! Reads IP and TCP headers of a `cgroup_skb` packet, which starts at its network header and need not
//! be linear. Where they are, as nearly always, they are read in place: each helper that copies instead costs more
//! than all of it.

use core::{hint::cold_path, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use probe_common::handshake::Pair;

use crate::sock::map_v4;

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const IPPROTO_TCP: u8 = 6;
/// Of a TCP header, up to its flags.
const TCP_FRONT: usize = 14;
/// Extension headers that are followed; hosts send at most a few.
const EXTENSIONS: u32 = 6;

/// How nearly every packet begins: IPv4 without options, then TCP up to its flags. Numbers are in network
/// order; headers lie at even addresses.
#[repr(C, packed(2))]
struct Front {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: [u8; 4],
    destination: [u8; 4],
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    data_offset: u8,
    flags: u8,
}

const PLAIN_V4: u32 = 20;
const _: () = assert!(size_of::<Front>() == PLAIN_V4 as usize + TCP_FRONT);

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

/// The packet's front, if it lies in one piece.
#[inline(always)]
fn in_place(skb: *mut __sk_buff) -> Option<*const Front> {
    // SAFETY: fields of the context.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    (start + size_of::<Front>() <= end).then_some(start as *const Front)
}

/// What is asked of every packet's front.
#[derive(Clone, Copy)]
struct Asked {
    version_and_length: u8,
    protocol: u8,
    data_offset: u8,
    flags: u8,
    sequence: u32,
}

impl Asked {
    #[inline(always)]
    fn of(front: &Front) -> Self {
        Self {
            version_and_length: front.version_and_length,
            protocol: front.protocol,
            data_offset: front.data_offset,
            flags: front.flags,
            sequence: u32::from_be(front.sequence),
        }
    }

    #[inline(always)]
    fn read(skb: *mut __sk_buff) -> Option<Self> {
        if let Some(front) = in_place(skb) {
            // SAFETY: within the packet (checked).
            return Some(Self::of(unsafe { &*front }));
        }
        cold_path();
        let mut front = MaybeUninit::<Front>::uninit();
        // SAFETY: the helper writes all of `front`, or nothing of it is read.
        unsafe {
            let length = size_of::<Front>() as u32;
            (bpf_skb_load_bytes(skb.cast(), 0, front.as_mut_ptr().cast(), length) == 0)
                .then(|| Self::of(front.assume_init_ref()))
        }
    }
}

#[inline(always)]
pub fn parse(skb: *mut __sk_buff) -> Option<Packet> {
    let asked = Asked::read(skb)?;
    // SAFETY: our own variable; volatile, so that the ways to it end here: the verifier walks what follows once.
    let asked = unsafe { (&raw const asked).read_volatile() };
    let first = asked.version_and_length;
    let is_v6 = first >> 4 == 6;
    if !is_v6 && asked.protocol != IPPROTO_TCP {
        return None;
    }
    let tcp_offset = if is_v6 { skip_extensions(skb)? } else { u32::from(first & 0xf) * 4 };
    let (sequence, data_offset, flags) = if is_v6 || tcp_offset != PLAIN_V4 {
        let tcp = load::<TCP_FRONT>(skb, tcp_offset)?;
        (u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]), tcp[12], tcp[13])
    } else {
        (asked.sequence, asked.data_offset, asked.flags)
    };
    let payload_offset = tcp_offset + u32::from(data_offset >> 4) * 4;
    // SAFETY: a field of the context.
    let length = unsafe { (*skb).len };
    Some(Packet {
        tcp_offset,
        payload_offset,
        payload_length: length.saturating_sub(payload_offset),
        sequence,
        flags,
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
    let mut source = [0_u8; 16];
    let mut destination = [0_u8; 16];
    let (source_port, destination_port);
    if !packet.is_v6
        && packet.tcp_offset == PLAIN_V4
        && let Some(front) = in_place(skb)
    {
        // SAFETY: within the packet (checked).
        let front = unsafe { &*front };
        map_v4(&mut source, front.source);
        map_v4(&mut destination, front.destination);
        source_port = u16::from_be(front.source_port);
        destination_port = u16::from_be(front.destination_port);
    } else {
        let ports = load::<4>(skb, packet.tcp_offset)?;
        source_port = u16::from_be_bytes([ports[0], ports[1]]);
        destination_port = u16::from_be_bytes([ports[2], ports[3]]);
        if packet.is_v6 {
            source = load::<16>(skb, 8)?;
            destination = load::<16>(skb, 24)?;
        } else {
            map_v4(&mut source, load::<4>(skb, 12)?);
            map_v4(&mut destination, load::<4>(skb, 16)?);
        }
    }
    let (local_address, remote_address, local_port, remote_port) = if incoming {
        (destination, source, destination_port, source_port)
    } else {
        (source, destination, source_port, destination_port)
    };
    Some(Pair { local_address, remote_address, netns, local_port, remote_port })
}
