//! What the first bytes of a connection say, as far as the kernel side needs to know it.

use aya_ebpf::bindings::__sk_buff;
use probe_common::connection::{Connection, class};

use crate::packet::{self, Packet};

/// Length of `HTTP/1.x NNN`.
pub const STATUS_LINE: u8 = 12;
/// A close frame has at most a two-byte header, a mask and 125 bytes.
pub const LARGEST_CLOSE_FRAME: u32 = 131;

/// What the first bytes of a client are.
#[inline(always)]
pub fn classify(skb: *mut __sk_buff, packet: &Packet) -> u8 {
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

/// Status of a packet that begins with the whole `HTTP/1.x NNN`, 0 if it doesn't. The number is looked at
/// first: of most later packets it is what tells that they are no answer.
#[inline(always)]
pub fn status(skb: *mut __sk_buff, packet: &Packet) -> u16 {
    let Some([blank, a, b, c]) = packet::load::<4>(skb, packet.payload_offset + 8) else {
        return 0;
    };
    let (a, b, c) = (digit(a), digit(b), digit(c));
    if blank != b' ' || a > 9 || b > 9 || c > 9 {
        return 0;
    }
    match packet::load::<7>(skb, packet.payload_offset) {
        Some(version) if version == *b"HTTP/1." => a * 100 + b * 10 + c,
        _ => 0,
    }
}

#[inline(always)]
fn digit(byte: u8) -> u16 {
    u16::from(byte.wrapping_sub(b'0'))
}

/// Status of a response that comes a few bytes at a time; 0 until it is there, and if it never will be.
#[inline(always)]
pub fn status_in_pieces(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) -> u16 {
    // By number of the byte, whose place in a table the verifier would have to know.
    const VERSION: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
    let before = u32::from(connection.line_length);
    for index in 0..STATUS_LINE {
        let Some(taken) = u32::from(index).checked_sub(before) else { continue };
        if taken >= packet.payload_length {
            break;
        }
        let Some([byte]) = packet::load::<1>(skb, packet.payload_offset + taken) else { break };
        let is_status = match index {
            0..7 => byte == (VERSION >> (8 * index)) as u8,
            7 => true,
            8 => byte == b' ',
            _ => {
                connection.status_digits = connection.status_digits * 10 + digit(byte);
                byte.is_ascii_digit()
            }
        };
        connection.line_length = index + 1;
        if !is_status {
            connection.line_length = STATUS_LINE;
            return 0;
        }
    }
    if connection.line_length < STATUS_LINE { 0 } else { connection.status_digits }
}

/// A packet that is one close frame. A heuristic: a frame may also begin inside a packet.
#[inline(always)]
pub fn close_code(skb: *mut __sk_buff, packet: &Packet, connection: &mut Connection) {
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
