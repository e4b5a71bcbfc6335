//! The stages of a handshake on its connection, until the first frames each way. Packets after that
//! leave early.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_ns};
use probe_common::{
    connection::{Connection, class, flag},
    handshake::Pair,
    payload::{LIMIT, PIECE, Piece, SMALL},
    state::role,
};

use crate::{
    http::{self, LARGEST_CLOSE_FRAME, STATUS_LINE, classify, close_code},
    packet::{self, Packet},
    payload::hand_on,
};

/// The head of a `101` is short.
const LARGEST_SWITCH: u32 = 1024;
/// Room for the headers of the smallest packets that are looked at for a close frame.
const LARGEST_HEADERS: u32 = 120;

/// A packet of a connection. Leaves early once everything was seen.
#[inline(always)]
pub fn on_connection(skb: *mut __sk_buff, connection: &mut Connection, incoming: bool) {
    if connection.complete != 0 && !worth_a_look(skb, connection, incoming) {
        return;
    }
    if connection.flags & flag::SEEDED != 0 {
        return; // its first bytes are long gone
    }
    let Some(packet) = packet::parse(skb) else { return };
    if packet.payload_length == 0 || packet.flags & packet::RST != 0 {
        return;
    }
    if connection.complete != 0 {
        if connection.seen_class == class::UPGRADED {
            close_code(skb, &packet, connection);
        } else {
            later_upgrade(skb, &packet, connection);
        }
        return;
    }
    let first_byte = packet.first_byte();
    let (base, seen) = if incoming {
        (&mut connection.base_in, &mut connection.seen_in)
    } else {
        (&mut connection.base_out, &mut connection.seen_out)
    };
    if *seen == 0 {
        *base = first_byte;
    }
    let offset = first_byte.wrapping_sub(*base);
    if offset < *seen || offset > u32::MAX / 2 {
        return; // a retransmission
    }
    *seen = offset.saturating_add(packet.payload_length);
    let from_client = incoming == (connection.role == role::PASSIVE);
    let now = now();
    if from_client {
        on_request(skb, &packet, connection, incoming, now);
    } else {
        on_response(skb, &packet, connection, incoming, now);
    }
    let wanted = matches!(connection.seen_class, class::HTTP | class::UPGRADED)
        && connection.line_length != Connection::LATER_UPGRADE;
    if !wanted || connection.complete != 0 {
        return;
    }
    // Of a refusal only status and reason are wanted, not its body.
    let refused = !from_client
        && connection.line_length == STATUS_LINE
        && connection.seen_class != class::UPGRADED;
    let (limit, most) = if refused { (PIECE as u32, SMALL as u32) } else { (LIMIT, LIMIT) };
    if offset >= limit {
        return;
    }
    let pair = if packet.flags & packet::SYN == 0 {
        Pair::of(connection)
    } else {
        // The connection does not know its own port yet.
        match packet::pair(skb, &packet, connection.netns, incoming) {
            Some(pair) => pair,
            None => return,
        }
    };
    let piece = Piece {
        tag: 0,
        at_ns: now,
        pair,
        offset,
        length: 0,
        incoming: u8::from(incoming),
        role: connection.role,
    };
    hand_on(skb, &packet, &piece, packet.payload_length.min(limit - offset).min(most));
}

#[inline(always)]
fn on_request(
    skb: *mut __sk_buff,
    packet: &Packet,
    connection: &mut Connection,
    incoming: bool,
    now: u64,
) {
    if connection.request_ns == 0 {
        connection.request_ns = now;
        if connection.response_ns == 0 {
            connection.seen_class = classify(skb, packet);
        }
        return;
    }
    if connection.upgraded_ns != 0 {
        on_frame(skb, packet, connection, incoming, now);
    } else if connection.line_length == STATUS_LINE {
        // A second request on the same connection: only a later upgrade is of interest now.
        connection.complete = 1;
    }
}

#[inline(always)]
fn on_response(
    skb: *mut __sk_buff,
    packet: &Packet,
    connection: &mut Connection,
    incoming: bool,
    now: u64,
) {
    if connection.response_ns == 0 {
        connection.response_ns = now;
        if connection.request_ns == 0 && connection.flags & flag::CAUGHT_UP == 0 {
            connection.seen_class = class::OTHER; // the server speaks first
        }
    } else if connection.upgraded_ns != 0 {
        on_frame(skb, packet, connection, incoming, now);
        return;
    }
    if connection.seen_class != class::HTTP {
        connection.complete = 1;
    } else if connection.http_status == 0 && connection.line_length < STATUS_LINE {
        let status =
            if connection.line_length == 0 && packet.payload_length >= u32::from(STATUS_LINE) {
                connection.line_length = STATUS_LINE;
                http::status(skb, packet)
            } else {
                http::status_in_pieces(skb, packet, connection)
            };
        note_status(connection, status, now);
    }
}

#[inline(always)]
pub fn note_status(connection: &mut Connection, status: u16, now: u64) {
    if status == 101 {
        connection.upgraded_ns = now;
        connection.seen_class = class::UPGRADED;
    } else if status / 100 == 1 {
        // An interim response. The one that counts begins with a later packet, or userspace finds it.
        connection.line_length = 0;
        connection.status_digits = 0;
        return;
    }
    connection.http_status = status;
}

#[inline(always)]
fn on_frame(
    skb: *mut __sk_buff,
    packet: &Packet,
    connection: &mut Connection,
    incoming: bool,
    now: u64,
) {
    if incoming && connection.first_frame_in_ns == 0 {
        connection.first_frame_in_ns = now;
    }
    if !incoming && connection.first_frame_out_ns == 0 {
        connection.first_frame_out_ns = now;
    }
    if connection.first_frame_in_ns != 0 && connection.first_frame_out_ns != 0 {
        connection.complete = 1;
    }
    if connection.close_code == 0 {
        close_code(skb, packet, connection);
    }
}

/// Of a connection whose handshake is over: whether this may be its close frame, or, on one that was
/// kept after a plain request, a later upgrade.
#[inline(always)]
fn worth_a_look(skb: *mut __sk_buff, connection: &Connection, incoming: bool) -> bool {
    // SAFETY: a field of the context.
    let length = unsafe { (*skb).len };
    let from_server = incoming != (connection.role == role::PASSIVE);
    match connection.seen_class {
        class::UPGRADED => {
            connection.close_code == 0 && length <= LARGEST_CLOSE_FRAME + LARGEST_HEADERS
        }
        class::HTTP => from_server && length <= LARGEST_SWITCH + LARGEST_HEADERS,
        _ => false,
    }
}

#[inline(always)]
fn later_upgrade(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) {
    if http::status(skb, packet) == 101 {
        note_status(connection, 101, now());
        connection.line_length = Connection::LATER_UPGRADE;
        connection.complete = 0;
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
