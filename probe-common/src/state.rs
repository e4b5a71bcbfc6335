//! Kernel TCP states and the role of a socket.

/// `TCP_ESTABLISHED` … `TCP_NEW_SYN_RECV` as in `include/net/tcp_states.h`.
pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
pub const FIN_WAIT_1: u8 = 4;
pub const FIN_WAIT_2: u8 = 5;
pub const TIME_WAIT: u8 = 6;
pub const CLOSE: u8 = 7;
pub const CLOSE_WAIT: u8 = 8;
pub const LAST_ACK: u8 = 9;
pub const LISTEN: u8 = 10;
pub const CLOSING: u8 = 11;
pub const NEW_SYN_RECV: u8 = 12;

/// Counters per slot: one for each state, index = state − 1.
pub const STATES: usize = 12;

/// Names as `ss` and `/proc/net/tcp` readers know them, index = state − 1.
pub const STATE_NAMES: [&str; STATES] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// The name of a kernel state, `"unknown"` for a number that is none.
#[must_use]
pub fn state_name(state: u8) -> &'static str {
    match state {
        1..=12 => STATE_NAMES[state as usize - 1],
        _ => "unknown",
    }
}

/// How a socket came to be. A plain `u8` in records, since the kernel side writes it.
pub mod role {
    /// Seen only after the connection was made, and neither a listener nor the bind bucket tells.
    pub const UNKNOWN: u8 = 0;
    /// Opened by `accept`, or a listener.
    pub const PASSIVE: u8 = 1;
    /// Opened by `connect`.
    pub const ACTIVE: u8 = 2;

    #[must_use]
    pub fn name(role: u8) -> &'static str {
        match role {
            PASSIVE => "passive",
            ACTIVE => "active",
            _ => "unknown",
        }
    }
}
