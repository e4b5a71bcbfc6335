//! The stages of a handshake, told from packets: on the listener until the connection is there, on
//! the connection until its first frames.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_ktime_get_ns, generated::bpf_skb_load_bytes},
};
use probe_common::{
    connection::{Connection, class, flag},
    handshake::{Handshake, Pair, flag as handshake_flag},
    loss::Stat,
    payload::{LIMIT, PIECE, Payload},
    state::{self, role},
};

use crate::{
    count,
    maps::{HANDSHAKES, RECORDS},
    packet::{self, Packet},
    sock::{AF_INET, AF_INET6, Sock},
};

const BPF_RB_NO_WAKEUP: u64 = 1;
/// A close frame has at most a two-byte header, a mask and 125 bytes.
const LARGEST_CLOSE_FRAME: u32 = 131;
/// Length of `HTTP/1.x NNN`.
const STATUS_LINE: u8 = 12;
/// Room for the headers of the smallest packets that are looked at for a close frame.
const LARGEST_HEADERS: u32 = 120;
/// Pieces that are taken of one packet.
const PIECES: u32 = (LIMIT as usize / PIECE) as u32;

/// A packet of a listener: the handshake before its connection.
#[inline(always)]
pub fn on_listener(skb: *mut __sk_buff, listener: &Connection, incoming: bool) {
    let Some(packet) = packet::parse(skb) else { return };
    let Some(pair) = packet::pair(skb, &packet, listener.netns, incoming) else { return };
    let now = now();
    let handshake = match HANDSHAKES.get_ptr_mut(&pair) {
        Some(handshake) => handshake,
        None if incoming && packet.flags & (packet::SYN | packet::ACK) == packet::SYN => {
            let fresh = Handshake { cgroup_id: listener.cgroup_id, ..Handshake::default() };
            if HANDSHAKES.insert(&pair, fresh, 0).is_err() {
                count::note(Stat::HandshakeMapFull);
                return;
            }
            match HANDSHAKES.get_ptr_mut(&pair) {
                Some(handshake) => handshake,
                None => return,
            }
        }
        // With SYN cookies, or a SYN from before the programs.
        None => return,
    };
    // SAFETY: a live map value. Packets of one handshake come one after the other.
    let handshake = unsafe { &mut *handshake };
    if !incoming {
        if packet.flags & packet::SYN == 0 {
            return; // a reset on the listener's behalf
        }
        handshake.syn_acks = handshake.syn_acks.wrapping_add(1);
        if handshake.syn_ack_ns == 0 {
            handshake.syn_ack_ns = now;
        }
        return;
    }
    let queue = Sock::new(listener.sk as *const _).queues();
    handshake.accept_queue = queue.accepting;
    handshake.accept_queue_max = queue.max;
    let full = queue.accepting > queue.max;
    if packet.flags & packet::RST != 0 {
        handshake.flags |= handshake_flag::RST_RECEIVED;
        handshake.rst_ns = now;
    } else if packet.flags & packet::SYN != 0 {
        handshake.syns = handshake.syns.wrapping_add(1);
        if handshake.syn_ns == 0 {
            handshake.syn_ns = now;
        }
        if full {
            handshake.flags |= handshake_flag::ACCEPT_QUEUE_FULL_AT_SYN;
        } else if queue.waiting >= queue.max {
            handshake.flags |= handshake_flag::SYN_QUEUE_FULL;
        }
    } else {
        handshake.ack_ns = now;
        if full {
            handshake.flags |= handshake_flag::ACCEPT_QUEUE_FULL_AT_ACK;
        }
    }
    // With the last ACK, or by TCP Fast Open with the SYN.
    if packet.payload_length > 0 && packet.flags & packet::RST == 0 && handshake.request_ns == 0 {
        handshake.request_ns = now;
        handshake.request_sequence = packet.first_byte();
        handshake.request_length = packet.payload_length;
        let seen = classify(skb, &packet);
        handshake.class = u32::from(seen);
        if seen == class::HTTP {
            hand_on(skb, &packet, &pair, Span::first(LIMIT), true, role::UNKNOWN, now);
        }
    }
}

/// A packet that a socket sends before its connection is established: with TCP Fast Open the SYN-ACK
/// belongs to the child, and the answer may leave before the last ACK comes.
#[inline(always)]
pub fn on_fast_open(skb: *mut __sk_buff, netns: u32) {
    let Some(packet) = packet::parse(skb) else { return };
    let Some(pair) = packet::pair(skb, &packet, netns, false) else { return };
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair) else { return };
    // SAFETY: a live map value. Packets of one handshake come one after the other.
    let handshake = unsafe { &mut *handshake };
    let now = now();
    if packet.flags & packet::SYN != 0 {
        handshake.syn_acks = handshake.syn_acks.wrapping_add(1);
        if handshake.syn_ack_ns == 0 {
            handshake.syn_ack_ns = now;
        }
    } else if packet.payload_length > 0 && handshake.response_ns == 0 {
        handshake.response_ns = now;
        handshake.response_sequence = packet.sequence;
        handshake.response_length = packet.payload_length;
        if handshake.class == u32::from(class::HTTP) {
            let line = packet::load::<12>(skb, packet.payload_offset).unwrap_or_default();
            handshake.http_status = u32::from(status_of(&line));
            hand_on(skb, &packet, &pair, Span::first(LIMIT), false, role::UNKNOWN, now);
        }
    }
}

/// Whether the handshake of a received packet was not taken over by its connection.
#[inline(always)]
pub fn has_handshake(skb: *mut __sk_buff, netns: u32) -> bool {
    let Some(packet) = packet::parse(skb) else { return false };
    let Some(pair) = packet::pair(skb, &packet, netns, true) else { return false };
    HANDSHAKES.get_ptr(&pair).is_some()
}

/// Takes over what was seen on the listener.
#[inline(always)]
pub fn take_over(connection: &mut Connection) {
    let pair = pair_of(connection);
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair) else { return };
    // SAFETY: a live map value.
    let handshake = unsafe { &*handshake };
    connection.syn_received_ns = handshake.syn_ns;
    connection.syn_ack_sent_ns = handshake.syn_ack_ns;
    connection.request_ns = handshake.request_ns;
    connection.base_in = handshake.request_sequence;
    connection.seen_in = handshake.request_length;
    connection.response_ns = handshake.response_ns;
    connection.base_out = handshake.response_sequence;
    connection.seen_out = handshake.response_length;
    if handshake.class != 0 {
        connection.seen_class = handshake.class as u8;
    }
    if handshake.http_status != 0 {
        connection.line_length = STATUS_LINE;
        note_status(connection, handshake.http_status as u16, handshake.response_ns);
    }
    if handshake.syns > 1 {
        connection.flags |= flag::SYN_RETRANSMITTED;
    }
    if handshake.syn_acks > 1 {
        connection.flags |= flag::SYN_ACK_RETRANSMITTED;
    }
    let full = handshake_flag::ACCEPT_QUEUE_FULL_AT_SYN | handshake_flag::ACCEPT_QUEUE_FULL_AT_ACK;
    if handshake.flags & full != 0 {
        connection.flags |= flag::ACCEPT_QUEUE_WAS_FULL;
    }
    let _ = HANDSHAKES.remove(&pair);
}

/// A SYN to a port where nobody listens: over at once, so its record goes out at once. A client may
/// use the same port again right away.
#[inline(always)]
pub fn no_listener(pair: &Pair) {
    let Some(mut slot) = RECORDS.reserve::<Connection>(0) else {
        count::note(Stat::RecordsLost);
        return;
    };
    let record = slot.as_mut_ptr();
    let now = now();
    // SAFETY: the reserved record is ours until it is submitted, and all-zero is a valid Connection.
    unsafe {
        record.write_bytes(0, 1);
        (*record).sk = Connection::NO_SOCKET;
        (*record).slot = Connection::NO_SLOT;
        (*record).netns = pair.netns;
        (*record).local_address = pair.local_address;
        (*record).remote_address = pair.remote_address;
        (*record).local_port = pair.local_port;
        (*record).remote_port = pair.remote_port;
        (*record).family = if pair.is_v4() { AF_INET } else { AF_INET6 };
        (*record).role = role::PASSIVE;
        (*record).state = state::CLOSE;
        (*record).class = class::SILENT;
        (*record).seen_class = class::SILENT;
        (*record).flags = flag::RST_SENT;
        (*record).first_seen_ns = now;
        (*record).syn_received_ns = now;
        (*record).closed_ns = now;
    }
    slot.submit(BPF_RB_NO_WAKEUP);
    count::note(Stat::RecordsSubmitted);
}

/// A packet of a connection. Leaves early once everything was seen.
#[inline(always)]
pub fn on_connection(skb: *mut __sk_buff, connection: &mut Connection, incoming: bool) {
    if connection.complete != 0 {
        // SAFETY: a field of the context.
        let length = unsafe { (*skb).len };
        if connection.seen_class == class::UPGRADED
            && connection.close_code == 0
            && length <= LARGEST_CLOSE_FRAME + LARGEST_HEADERS
        {
            look_for_close(skb, connection);
        }
        return;
    }
    if connection.flags & flag::SEEDED != 0 {
        return; // its first bytes are long gone
    }
    let Some(packet) = packet::parse(skb) else { return };
    if packet.payload_length == 0 || packet.flags & packet::RST != 0 {
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
    let wanted = matches!(connection.seen_class, class::HTTP | class::UPGRADED);
    // Of a refusal only status and reason are wanted, not its body.
    let refused = !from_client
        && connection.line_length == STATUS_LINE
        && connection.seen_class != class::UPGRADED;
    let limit = if refused { PIECE as u32 } else { LIMIT };
    if wanted && connection.complete == 0 && offset < limit {
        let pair = if packet.flags & packet::SYN == 0 {
            pair_of(connection)
        } else {
            // The connection does not know its own port yet.
            match packet::pair(skb, &packet, connection.netns, incoming) {
                Some(pair) => pair,
                None => return,
            }
        };
        hand_on(skb, &packet, &pair, Span { offset, limit }, incoming, connection.role, now);
    }
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
        // A second request on the same connection: its handshake is over.
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
        if connection.request_ns == 0 {
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
                status(skb, packet, connection)
            } else {
                status_in_pieces(skb, packet, connection)
            };
        note_status(connection, status, now);
    }
}

#[inline(always)]
fn note_status(connection: &mut Connection, status: u16, now: u64) {
    if status == 101 {
        connection.upgraded_ns = now;
        connection.seen_class = class::UPGRADED;
    } else if status / 100 == 1 {
        // An interim response. The one that counts begins with a later packet, or userspace finds it.
        connection.line_length = 0;
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

/// What the first bytes of a client are.
#[inline(always)]
fn classify(skb: *mut __sk_buff, packet: &Packet) -> u8 {
    let Some([first, second, third]) = packet::load::<3>(skb, packet.payload_offset) else {
        // One or two bytes: userspace sees the rest.
        return class::HTTP;
    };
    if first == 0x16 && second == 0x03 {
        return class::TLS;
    }
    // A method of upper-case letters, or the blank lines that servers must skip before it.
    let letter = |byte: u8| byte.is_ascii_uppercase();
    let blank = |byte: u8| byte == b'\r' || byte == b'\n';
    if (letter(first) && letter(second) && letter(third)) || blank(first) {
        class::HTTP
    } else {
        class::OTHER
    }
}

/// Status of a packet that holds the whole `HTTP/1.x NNN`.
#[inline(always)]
fn status(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) -> u16 {
    let Some(line) = packet::load::<12>(skb, packet.payload_offset) else { return 0 };
    connection.line_length = STATUS_LINE;
    status_of(&line)
}

/// Status of a response that comes a few bytes at a time.
#[inline(always)]
fn status_in_pieces(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) -> u16 {
    let before = u32::from(connection.line_length);
    // Over the places in the line, not over the bytes of the packet: the index of a map value must be
    // known in each turn, which kernels such as 6.1 forget of a number that was on the stack.
    for index in 0..STATUS_LINE {
        let Some(taken) = u32::from(index).checked_sub(before) else { continue };
        if taken >= packet.payload_length {
            break;
        }
        let Some([byte]) = packet::load::<1>(skb, packet.payload_offset + taken) else { break };
        connection.line[usize::from(index)] = byte;
        connection.line_length = index + 1;
    }
    if connection.line_length < STATUS_LINE { 0 } else { status_of(&connection.line) }
}

/// Status of `HTTP/1.x NNN`, 0 if it is none.
#[inline(always)]
fn status_of(line: &[u8; 12]) -> u16 {
    if line[..7] != *b"HTTP/1." || line[8] != b' ' {
        return 0;
    }
    let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
    let (a, b, c) = (digit(line[9]), digit(line[10]), digit(line[11]));
    if a > 9 || b > 9 || c > 9 { 0 } else { a * 100 + b * 10 + c }
}

#[inline(always)]
fn look_for_close(skb: *mut __sk_buff, connection: &mut Connection) {
    if let Some(packet) = packet::parse(skb) {
        close_code(skb, &packet, connection);
    }
}

/// A packet that is one close frame. A heuristic: a frame may also begin inside a packet.
#[inline(always)]
fn close_code(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) {
    if packet.payload_length < 4 || packet.payload_length > LARGEST_CLOSE_FRAME {
        return;
    }
    let Some([opcode, length]) = packet::load::<2>(skb, packet.payload_offset) else { return };
    if opcode != 0x88 || length & 0x7f < 2 {
        return;
    }
    connection.close_code = if length & 0x80 == 0 {
        match packet::load::<2>(skb, packet.payload_offset + 2) {
            Some(code) => u16::from_be_bytes(code),
            None => 0,
        }
    } else {
        match packet::load::<6>(skb, packet.payload_offset + 2) {
            Some([m0, m1, _, _, c0, c1]) => u16::from_be_bytes([c0 ^ m0, c1 ^ m1]),
            None => 0,
        }
    };
}

/// Where a payload lies in its direction's stream, and how much of that is wanted.
#[derive(Clone, Copy)]
struct Span {
    offset: u32,
    limit: u32,
}

impl Span {
    #[inline(always)]
    const fn first(limit: u32) -> Self {
        Self { offset: 0, limit }
    }
}

/// Hands the payload of a packet to userspace, in pieces.
#[inline(always)]
fn hand_on(
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

#[inline(always)]
fn pair_of(connection: &Connection) -> Pair {
    Pair {
        local_address: connection.local_address,
        remote_address: connection.remote_address,
        netns: connection.netns,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
