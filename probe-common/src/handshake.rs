//! A passive handshake before its connection exists: what was seen on the listener, by address pair.

use crate::connection::Connection;

/// Bits of [`Handshake::flags`].
pub mod flag {
    /// The accept queue was full when a SYN arrived: the kernel drops such a SYN.
    pub const ACCEPT_QUEUE_FULL_AT_SYN: u32 = 1 << 0;
    /// The accept queue was full when the last ACK arrived: the kernel drops such an ACK.
    pub const ACCEPT_QUEUE_FULL_AT_ACK: u32 = 1 << 1;
    /// The queue of waiting SYNs was full when a SYN arrived.
    pub const SYN_QUEUE_FULL: u32 = 1 << 2;
    /// The client sent a RST.
    pub const RST_RECEIVED: u32 = 1 << 3;
    /// Its connection has it. To be seen only where it could not be taken out at that moment: in one of 5.11 to
    /// 6.6 that comes between another and its lock, the kernel refuses to change a map (`EBUSY`).
    pub const TAKEN_OVER: u32 = 1 << 4;
}

/// Address pair within a network namespace, as the server sees it. Addresses are IPv6 or v4-mapped,
/// network order; ports are host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pair {
    pub local_address: [u8; 16],
    pub remote_address: [u8; 16],
    pub netns: u32,
    pub local_port: u16,
    pub remote_port: u16,
}

impl Pair {
    #[must_use]
    #[inline(always)]
    pub fn of(connection: &Connection) -> Self {
        Self {
            local_address: connection.local_address,
            remote_address: connection.remote_address,
            netns: connection.netns,
            local_port: connection.local_port,
            remote_port: connection.remote_port,
        }
    }

    /// Both addresses are v4-mapped.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        matches!(self.local_address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
    }
}

/// Taken over into the connection once it is established; what stays behind has failed, or waits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake {
    /// First SYN, first SYN-ACK, last ACK that came to the listener. 0: not seen.
    pub syn_ns: u64,
    pub syn_ack_ns: u64,
    pub ack_ns: u64,
    /// First payload, where it came with the ACK that completes the handshake or, with TCP Fast Open,
    /// with the SYN.
    pub request_ns: u64,
    /// First payload sent before the handshake was complete, as TCP Fast Open allows.
    pub response_ns: u64,
    pub rst_ns: u64,
    /// cgroup2 id of the listener.
    pub cgroup_id: u64,
    /// [`flag`] bits.
    pub flags: u32,
    pub syns: u16,
    pub syn_acks: u16,
    /// Sequence number and length of the first payload received, and what it is
    /// ([`crate::connection::class`]).
    pub request_sequence: u32,
    pub request_length: u32,
    pub class: u32,
    /// Sequence number and length of the first payload sent, and its HTTP status.
    pub response_sequence: u32,
    pub response_length: u32,
    pub http_status: u32,
    /// Connections waiting to be accepted when the last SYN or ACK came.
    pub accept_queue: u32,
    pub accept_queue_max: u32,
}

const _: () = assert!(size_of::<Pair>() == 40);
const _: () = assert!(size_of::<Handshake>() == 96);

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), no padding (asserted above), every bit pattern is valid.
    unsafe impl aya::Pod for super::Pair {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Handshake {}
}
