//! The handshake before there is a connection: packets of listeners, until the child takes over what
//! was seen.

use core::hint::cold_path;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use probe_common::{
    connection::{Connection, class, flag},
    handshake::{Handshake, Pair, flag as handshake_flag},
    loss::Stat,
    payload::{LIMIT, Piece},
    state::{self, role},
};

use crate::{
    count,
    http::{self, STATUS_LINE},
    maps::{HANDSHAKES, RECORDS},
    packet::{self, Packet},
    payload::hand_on,
    sock::{AF_INET, AF_INET6, Queues, Sock},
    stage,
};

const BPF_RB_NO_WAKEUP: u64 = 1;
const EEXIST: i32 = -17;

/// A packet of a listener: the handshake before its connection.
#[inline(always)]
pub fn on_packet(skb: *mut __sk_buff, listener: &Connection, incoming: bool) {
    let Some(packet) = packet::parse(skb) else { return };
    let Some(pair) = packet::pair(skb, &packet, listener.netns, incoming) else { return };
    let now = now();
    if !incoming {
        // Without an entry: SYN cookies, or a SYN from before the programs. A packet that is no SYN is a reset
        // on the listener's behalf.
        if packet.flags & packet::SYN != 0
            && let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair)
        {
            // SAFETY: a live map value. Packets of one handshake come one after the other.
            note_syn_ack(unsafe { &mut *handshake }, now);
        }
        return;
    }
    let queue = Sock::new(listener.sk as *const _).queues();
    let full = queue.accepting > queue.max;
    if packet.flags & (packet::SYN | packet::ACK) == packet::SYN {
        let mut fresh = Handshake { cgroup_id: listener.cgroup_id, ..Handshake::default() };
        note_syn(&mut fresh, &queue, now);
        match HANDSHAKES.insert(&pair, fresh, u64::from(BPF_NOEXIST)) {
            Ok(()) if packet.payload_length == 0 => return,
            Ok(()) => {}
            Err(EEXIST) => {
                if let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair) {
                    // SAFETY: as above.
                    let handshake = unsafe { &mut *handshake };
                    if handshake.flags & handshake_flag::TAKEN_OVER != 0 {
                        cold_path();
                        *handshake = fresh;
                    } else {
                        note_syn(handshake, &queue, now);
                    }
                }
            }
            Err(_) => {
                count::note(Stat::HandshakeMapFull);
                return;
            }
        }
    }
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair) else { return };
    // SAFETY: as above.
    let handshake = unsafe { &mut *handshake };
    if packet.flags & packet::RST != 0 {
        handshake.flags |= handshake_flag::RST_RECEIVED;
        handshake.rst_ns = now;
    } else if packet.flags & packet::SYN == 0 {
        handshake.accept_queue = queue.accepting;
        handshake.accept_queue_max = queue.max;
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
        let seen = http::classify(skb, &packet);
        handshake.class = u32::from(seen);
        if seen == class::HTTP {
            hand_on_first(skb, &packet, pair, true, now);
        }
    }
}

#[inline(always)]
fn note_syn(handshake: &mut Handshake, queue: &Queues, now: u64) {
    handshake.accept_queue = queue.accepting;
    handshake.accept_queue_max = queue.max;
    handshake.syns = handshake.syns.wrapping_add(1);
    if handshake.syn_ns == 0 {
        handshake.syn_ns = now;
    }
    if queue.accepting > queue.max {
        handshake.flags |= handshake_flag::ACCEPT_QUEUE_FULL_AT_SYN;
    } else if queue.waiting >= queue.max {
        handshake.flags |= handshake_flag::SYN_QUEUE_FULL;
    }
}

#[inline(always)]
fn note_syn_ack(handshake: &mut Handshake, now: u64) {
    handshake.syn_acks = handshake.syn_acks.wrapping_add(1);
    if handshake.syn_ack_ns == 0 {
        handshake.syn_ack_ns = now;
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
        note_syn_ack(handshake, now);
    } else if packet.payload_length > 0 && handshake.response_ns == 0 {
        handshake.response_ns = now;
        handshake.response_sequence = packet.sequence;
        handshake.response_length = packet.payload_length;
        if handshake.class == u32::from(class::HTTP) {
            handshake.http_status = u32::from(http::status(skb, &packet));
            hand_on_first(skb, &packet, pair, false, now);
        }
    }
}

/// The first payload of a direction, before there is a connection.
#[inline(always)]
fn hand_on_first(skb: *mut __sk_buff, packet: &Packet, pair: Pair, incoming: bool, now: u64) {
    let piece = Piece {
        tag: 0,
        at_ns: now,
        pair,
        offset: 0,
        length: 0,
        incoming: u8::from(incoming),
        role: role::UNKNOWN,
    };
    hand_on(skb, packet, &piece, packet.payload_length.min(LIMIT));
}

/// Whether a handshake was not taken over by its connection yet.
#[inline(always)]
pub fn has_handshake(pair: &Pair) -> bool {
    HANDSHAKES.get_ptr(pair).is_some()
}

/// Takes over what was seen on the listener.
#[inline(always)]
pub fn take_over(connection: &mut Connection) {
    let pair = Pair::of(connection);
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&pair) else { return };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.flags & handshake_flag::TAKEN_OVER != 0 {
        cold_path();
        return;
    }
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
        stage::note_status(connection, handshake.http_status as u16, handshake.response_ns);
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
    handshake.flags |= handshake_flag::TAKEN_OVER;
    let _ = HANDSHAKES.remove(&pair);
}

/// A SYN to a port where nobody listens: over at once, so its record goes out at once. A client may
/// use the same port again right away.
#[inline(always)]
pub fn no_listener(pair: &Pair) {
    count::note(Stat::StraySyns);
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

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
