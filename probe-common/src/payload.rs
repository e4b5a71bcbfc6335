//! The first bytes of a connection, each way, on their way to the parser in userspace. They are
//! parsed in memory and dropped.

use crate::handshake::Pair;

/// Bytes of a direction that are copied at most, over all packets: cookies make heads of several KiB.
pub const LIMIT: u32 = 8192;

/// Bytes that one piece holds at most.
pub const PIECE: usize = 1024;

/// The same, of the last piece of a packet. A place in the ring has one of these two sizes, however much of it is
/// used: most heads fit in this one.
pub const SMALL: usize = 192;

/// What a piece of payload is. Shares the ring with [`crate::connection::Connection`], so that both stay
/// in order; `tag` is 0 where a connection has its socket's address.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub tag: u64,
    pub at_ns: u64,
    pub pair: Pair,
    /// Offset of the piece in its direction's stream, from 0.
    pub offset: u32,
    /// Bytes of payload that follow.
    pub length: u16,
    /// 1 if the host received it, 0 if the host sent it.
    pub incoming: u8,
    /// [`crate::state::role`] of the socket, `UNKNOWN` if it came on the listener.
    pub role: u8,
}

/// A piece and its payload, of which `length` bytes are written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Payload<const N: usize> {
    pub piece: Piece,
    pub bytes: [u8; N],
}

const _: () = assert!(size_of::<Payload<PIECE>>() == 64 + PIECE);
const _: () = assert!(size_of::<Payload<SMALL>>() == 64 + SMALL);

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for Piece {}
