//! SYNs from hosts that do not exist: the listener's queue of half-open handshakes, or its cookies.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::worker::{BACKLOG, Worker};

const SYNS: u16 = 500;

pub(super) fn syn_flood(worker: &mut Worker) -> io::Result<()> {
    if worker.server.v4.is_loopback() {
        // Loopback has no hosts that are silent: each SYN-ACK comes to a stack that resets it.
        return flood_from(worker, Ipv4Addr::new(127, 9, 9, 9));
    }
    let [a, b, c, _] = worker.server.v4.octets();
    flood_from(worker, Ipv4Addr::new(a, b, c, 200))
}

/// On a listener of its own, since without cookies nothing else gets through for a minute.
fn flood_from(worker: &mut Worker, source: Ipv4Addr) -> io::Result<()> {
    let _listener = worker.listen(worker.second_port(), BACKLOG)?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    raw.set_header_included_v4(true)?;
    let target = worker.server.v4;
    let address: SockAddr = SocketAddr::from((target, 0)).into();
    let first = worker.rng.u16(1024..60_000);
    for number in 0..SYNS {
        let sequence = worker.rng.u32(..);
        let packet =
            syn((source, first.wrapping_add(number)), (target, worker.second_port()), sequence);
        raw.send_to(&packet, &address)?;
    }
    // One that is real; it gets through where cookies are sent.
    let family = worker.family();
    let real = worker.socket(family)?;
    real.set_nonblocking(true)?;
    let _ = real.connect(&worker.target(family, worker.second_port()));
    Ok(())
}

/// An IPv4 packet with a SYN; the kernel fills in the IP checksum.
fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), sequence: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.0.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&64_000_u16.to_be_bytes());
    let sum = checksum(&packet[12..40], 6 + 20);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The Internet checksum over addresses and segment; `start` is the rest of the pseudo header.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let sum = bytes
        .chunks_exact(2)
        .fold(start, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_with_its_checksum_sums_to_zero() {
        let packet = syn((Ipv4Addr::new(10, 0, 0, 1), 1234), (Ipv4Addr::new(10, 0, 0, 2), 80), 7);
        assert_eq!(checksum(&packet[12..40], 26), 0);
    }
}
