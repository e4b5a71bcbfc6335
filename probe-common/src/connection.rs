//! One TCP connection as the kernel side knows it: the value of the connection map, and the record
//! that is sent once, when the connection is over and no process holds its descriptor any more.

/// Bits of [`Connection::flags`].
pub mod flag {
    /// Existed before the programs were attached; its early times are unknown.
    pub const SEEDED: u32 = 1 << 0;
    /// `sk->sk_socket` was seen set on a passive socket: a process has accepted it.
    pub const ACCEPTED: u32 = 1 << 1;
    /// `accepted_ns` is when that was noticed, not when it happened.
    pub const ACCEPTED_UPPER_BOUND: u32 = 1 << 2;
    /// A RST was received on the socket.
    pub const RST_RECEIVED: u32 = 1 << 3;
    /// The socket sent a RST.
    pub const RST_SENT: u32 = 1 << 4;
    /// The peer's FIN came before ours.
    pub const REMOTE_FIN_FIRST: u32 = 1 << 5;
    /// Our FIN went before the peer's.
    pub const LOCAL_FIN_FIRST: u32 = 1 << 6;
    /// Reached CLOSE while a process still held its descriptor.
    pub const FD_HELD_AT_CLOSE: u32 = 1 << 7;
    /// The socket was destroyed without a CLOSE having been seen; `closed_ns` is the destruction.
    pub const CLOSE_MISSED: u32 = 1 << 8;
    /// The SYN-ACK went out at least twice.
    pub const SYN_ACK_RETRANSMITTED: u32 = 1 << 9;
    /// Answered `101` with the accept key that the request's key asks for.
    pub const UPGRADED: u32 = 1 << 10;
    /// Events of this socket were missed and made good.
    pub const CAUGHT_UP: u32 = 1 << 12;
    /// The SYN came at least twice.
    pub const SYN_RETRANSMITTED: u32 = 1 << 13;
    /// The accept queue was full when a SYN or the last ACK of this connection came.
    pub const ACCEPT_QUEUE_WAS_FULL: u32 = 1 << 14;
    /// Not a connection but a listening socket.
    pub const LISTENER: u32 = 1 << 11;
    /// `established_ns` is when that was noticed, not when it happened.
    pub const ESTABLISHED_UPPER_BOUND: u32 = 1 << 15;
}

/// What the first bytes said the connection is: index into [`crate::key::CountSlot::classes`].
pub mod class {
    /// Existed before, or bytes were missed.
    pub const UNKNOWN: u8 = 0;
    /// Nothing was sent yet.
    pub const SILENT: u8 = 1;
    /// An HTTP request, or a response other than `101`.
    pub const HTTP: u8 = 2;
    /// Answered `101 Switching Protocols`.
    pub const UPGRADED: u8 = 3;
    pub const TLS: u8 = 4;
    pub const OTHER: u8 = 5;

    pub const NAMES: [&str; 6] = ["unknown", "silent", "http", "upgraded", "tls", "other"];
}

/// One connection. Identity is (`cookie`, `generation`); the map's key is the socket's address.
/// Addresses are IPv6 or v4-mapped IPv6, network order; ports are host order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Address of the kernel's socket: the key of the connection map.
    pub sk: u64,
    /// Socket cookie as `ss -e` prints it; 0 where the kernel has not made one.
    pub cookie: u64,
    /// cgroup2 id of the socket's own cgroup.
    pub cgroup_id: u64,
    /// cgroup2 id of the task that called `accept` or `connect`; 0 if not seen.
    pub task_cgroup_id: u64,

    pub first_seen_ns: u64,
    pub syn_received_ns: u64,
    pub syn_ack_sent_ns: u64,
    pub established_ns: u64,
    /// Written by `accept` itself where that is seen, before the socket has a descriptor; else by the next event,
    /// with [`flag::ACCEPTED_UPPER_BOUND`]. [`flag::ACCEPTED`] and the count follow at that event.
    pub accepted_ns: u64,
    pub request_ns: u64,
    pub response_ns: u64,
    pub upgraded_ns: u64,
    pub first_frame_in_ns: u64,
    pub first_frame_out_ns: u64,
    pub left_established_ns: u64,
    pub closed_ns: u64,
    /// When the process closed a descriptor that it still held at CLOSE.
    pub released_ns: u64,

    /// Payload, retransmissions included; as of CLOSE.
    pub bytes_sent: u64,
    /// Payload (the peer's FIN may count as one byte); as of CLOSE.
    pub bytes_received: u64,

    pub local_address: [u8; 16],
    pub remote_address: [u8; 16],
    pub netns: u32,
    /// Counts the connections that were made on one socket, from 0.
    pub generation: u32,
    /// Index of the counters this socket is counted in, [`Connection::NO_SLOT`] if not counted.
    pub slot: u32,
    /// [`flag`] bits.
    pub flags: u32,
    /// Task that called `accept` or `connect`; 0 if not seen.
    pub pid: u32,
    pub srtt_us: u32,
    /// Retransmitted segments over the connection's life.
    pub retransmits: u32,
    /// `sk_err` at CLOSE, a positive errno.
    pub error: u32,
    pub comm: [u8; 16],

    pub local_port: u16,
    pub remote_port: u16,
    /// Kernel state, [`crate::state`].
    pub state: u8,
    /// [`crate::state::role`]
    pub role: u8,
    /// `AF_INET` (2) or `AF_INET6` (10), as the socket was made.
    pub family: u8,
    /// [`class`] that it is counted in. Follows `seen_class` at the next moment that its lock is held.
    pub class: u8,
    /// Sequence number of the first payload byte each way, and bytes seen since, until `complete`.
    pub base_in: u32,
    pub base_out: u32,
    pub seen_in: u32,
    pub seen_out: u32,
    pub http_status: u16,
    pub close_code: u16,
    /// [`class`] that its packets told. Packets arrive without the socket's lock, so nothing that is
    /// written there shares a word with what is written under it.
    pub seen_class: u8,
    /// 1: a request, a response and a frame each way were seen; nothing more is asked of its packets.
    pub complete: u8,
    /// How much of the response's `HTTP/1.x NNN` was seen, [`Connection::LATER_UPGRADE`] once another
    /// request than the first was answered `101`.
    pub line_length: u8,
    /// 1: its last descriptor was closed, so a process had it. Written without the lock as well.
    pub released: u8,
    /// The last walk that met this socket.
    pub walk: u32,
    /// So far, of a status that comes in several packets.
    pub status_digits: u16,
    pub pad: u16,
}

impl Connection {
    pub const NO_SLOT: u32 = u32::MAX;
    pub const LATER_UPGRADE: u8 = 13;
    /// `sk` of a SYN that no socket took: no address, and not the 0 that marks a payload.
    pub const NO_SOCKET: u64 = 1;

    /// A process has it, or had.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        self.flags & flag::ACCEPTED != 0 || self.accepted_ns != 0
    }
}

const _: () = assert!(size_of::<Connection>() == 272);

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for Connection {}
