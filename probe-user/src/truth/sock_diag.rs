//! Sockets as the kernel lists them on request (`NETLINK_SOCK_DIAG`, what `ss` asks): the backend
//! where no eBPF runs, and what the audit holds our counts against.
//!
//! A dump is no instant: the kernel walks its hash table while connections come and go.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::SOCK_DIAG_BY_FAMILY,
    inet::{ExtensionFlags, InetResponse, StateFlags, Timer, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::identity::netns::{Inside, Netns};

/// `TCPDIAG_GETSOCK`
const GETSOCK: u16 = 18;
/// `INET_DIAG_CGROUP_ID`, Linux 5.8 and later.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// What to ask for beside addresses and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    Basic,
    /// The same, of mini sockets and of listeners only: the kernel passes over all others, which
    /// takes a small part of the time of listing them.
    Mini,
    /// Also [`TcpInfo`], which takes each socket's lock and about twice the time.
    TcpInfo,
}

/// One TCP socket of a dump, mini sockets (waiting SYNs, `time_wait`) included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    pub netns: u32,
    /// `AF_INET` (2) or `AF_INET6` (10), as the socket was made.
    pub family: u8,
    /// [`probe_common::state`]
    pub state: u8,
    /// IPv6 or v4-mapped IPv6, network order.
    pub local_address: [u8; 16],
    pub remote_address: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    pub cookie: u64,
    /// 0 for a socket that no process holds: not accepted yet, orphaned, or a mini socket.
    pub inode: u32,
    pub uid: u32,
    /// `None` before Linux 5.8, and for mini sockets.
    pub cgroup_id: Option<u64>,
    /// Of a listener: connections waiting to be accepted. Else: bytes not read yet.
    pub receive_queue: u32,
    /// Of a listener: its backlog. Else: bytes not acknowledged yet.
    pub send_queue: u32,
    pub info: Option<TcpInfo>,
    /// What is left of an orphan in `fin_wait_2` or `time_wait`.
    pub is_mini: bool,
}

/// The part of `struct tcp_info` that tells a live peer from a silent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Timeouts since the last acknowledgement.
    pub retransmits: u8,
    /// Keepalive or window probes without an answer.
    pub probes: u8,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    pub last_data_recv_ms: u32,
    pub last_ack_recv_ms: u32,
    pub rtt_us: u32,
    /// Segments retransmitted over the connection's life.
    pub total_retransmits: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
}

/// What is known of the peer of an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Heard of within the last minute.
    Live,
    /// Not heard of for longer, nor asked.
    Idle,
    /// At least two probes or retransmissions went without an answer.
    Silent,
}

impl TcpInfo {
    /// Probes and retransmissions since the peer last answered.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        u32::from(self.probes.max(self.retransmits))
    }

    /// Time since anything came from the peer.
    #[must_use]
    pub fn last_heard_ms(&self) -> u32 {
        self.last_ack_recv_ms.min(self.last_data_recv_ms)
    }

    #[must_use]
    pub fn peer(&self) -> Peer {
        if self.unanswered() >= 2 {
            Peer::Silent
        } else if self.last_heard_ms() < 60_000 {
            Peer::Live
        } else {
            Peer::Idle
        }
    }

    /// Older kernels send a shorter struct; fields past its end are 0.
    fn parse(bytes: &[u8]) -> Self {
        // Offsets as in `struct tcp_info` of include/uapi/linux/tcp.h, which only grows.
        Self {
            retransmits: bytes.get(2).copied().unwrap_or(0),
            probes: bytes.get(3).copied().unwrap_or(0),
            unacked: u32_at(bytes, 24),
            last_data_recv_ms: u32_at(bytes, 52),
            last_ack_recv_ms: u32_at(bytes, 56),
            rtt_us: u32_at(bytes, 68),
            total_retransmits: u32_at(bytes, 100),
            bytes_acked: u64_at(bytes, 120),
            bytes_received: u64_at(bytes, 128),
        }
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset.min(bytes.len())..].first_chunk().map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[offset.min(bytes.len())..].first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

/// Every TCP socket of a network namespace, IPv4 and IPv6, in every state.
///
/// # Errors
/// When the kernel refuses the dump (`ENOENT`: the module `tcp_diag` is missing).
pub fn dump(inside: &Inside, detail: Detail) -> io::Result<Vec<DiagSocket>> {
    let mut sockets = Vec::new();
    visit_all(inside.inode, detail, |socket| sockets.push(socket))?;
    Ok(sockets)
}

/// Visits the sockets of [`dump`], without keeping them.
///
/// # Errors
/// When the namespace cannot be entered, and as [`dump`].
pub fn each(netns: &Netns, detail: Detail, visit: impl FnMut(DiagSocket) + Send) -> io::Result<()> {
    netns.run(|| visit_all(netns.inode, detail, visit))?
}

/// Those of the namespace that the current thread is in.
fn visit_all(netns: u32, detail: Detail, mut visit: impl FnMut(DiagSocket)) -> io::Result<()> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(detail), 0)?;
    // The kernel fills datagrams of up to 32 KiB once it has seen a buffer that large.
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        let mut rest = buffer.as_mut_slice();
        while !rest.is_empty() {
            // The answers of both requests are the same `struct inet_diag_msg`.
            if let Some(kind) = rest.get_mut(4..6).filter(|kind| **kind == GETSOCK.to_ne_bytes()) {
                kind.copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            }
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    visit(read(&response, netns));
                }
                _ => {}
            }
            // Messages are aligned to 4 bytes (`NLMSG_ALIGN`); the length is not.
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &mut rest[length..];
        }
    }
}

/// The request of before Linux 3.3, `struct inet_diag_req`: the only one that asks for IPv4 and IPv6 at once.
/// A dump passes over every socket of the host, so two would take twice the time.
fn request(detail: Detail) -> Vec<u8> {
    const LENGTH: usize = 16 + 60;
    let (extensions, states) = match detail {
        Detail::Basic => (ExtensionFlags::empty(), StateFlags::all()),
        Detail::TcpInfo => (ExtensionFlags::INFO, StateFlags::all()),
        Detail::Mini => {
            let mini = StateFlags::SYN_RECV | StateFlags::FIN_WAIT2 | StateFlags::TIME_WAIT;
            (ExtensionFlags::empty(), StateFlags::LISTEN | mini)
        }
    };
    let mut bytes = vec![0; LENGTH];
    bytes[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&GETSOCK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // `idiag_ext` and `idiag_states`; no addresses, ports and interface are asked for.
    bytes[19] = extensions.bits();
    bytes[68..72].copy_from_slice(&states.bits().to_ne_bytes());
    bytes
}

fn read(response: &InetResponse, netns: u32) -> DiagSocket {
    let header = &response.header;
    let id = &header.socket_id;
    let mut socket = DiagSocket {
        netns,
        family: header.family,
        state: header.state,
        local_address: mapped(id.source_address),
        remote_address: mapped(id.destination_address),
        local_port: id.source_port,
        remote_port: id.destination_port,
        // The kernel sends the cookie as two u32, low half first.
        cookie: u64::from(u32_at(&id.cookie, 0)) | u64::from(u32_at(&id.cookie, 4)) << 32,
        inode: header.inode,
        uid: header.uid,
        cgroup_id: None,
        receive_queue: header.recv_queue,
        send_queue: header.send_queue,
        info: None,
        is_mini: matches!(header.timer, Some(Timer::TimeWait)),
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::TcpInfo(bytes) => socket.info = Some(TcpInfo::parse(bytes)),
            Nla::Other(other) if other.kind() == INET_DIAG_CGROUP_ID && other.value_len() == 8 => {
                let mut bytes = [0; 8];
                other.emit_value(&mut bytes);
                socket.cgroup_id = Some(u64::from_ne_bytes(bytes));
            }
            _ => {}
        }
    }
    socket
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};
    use probe_common::state;

    use super::*;

    fn of_port(port: u16, detail: Detail) -> Vec<DiagSocket> {
        let mut sockets = Vec::new();
        each(&Netns::current().unwrap(), detail, |socket| sockets.push(socket)).unwrap();
        sockets.retain(|socket| socket.local_port == port);
        sockets
    }

    #[test]
    fn a_known_number_of_connections_is_found() {
        for (address, family) in [("127.0.0.1:0", AF_INET), ("[::1]:0", AF_INET6)] {
            let listener = TcpListener::bind(address).unwrap();
            let at = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..23).map(|_| TcpStream::connect(at).unwrap()).collect();
            let accepted: Vec<_> = (0..7).map(|_| listener.accept().unwrap()).collect();

            let sockets = of_port(at.port(), Detail::Basic);
            let (listeners, connections): (Vec<_>, Vec<_>) =
                sockets.iter().partition(|socket| socket.state == state::LISTEN);
            assert_eq!(listeners.len(), 1);
            assert_eq!(listeners[0].receive_queue, 16, "waiting to be accepted");
            assert_eq!(connections.len(), 23);
            assert!(connections.iter().all(|socket| socket.state == state::ESTABLISHED));
            assert!(connections.iter().all(|socket| socket.family == family));
            assert!(connections.iter().all(|socket| socket.info.is_none()));
            assert_eq!(connections.iter().filter(|socket| socket.inode != 0).count(), 7);
            drop((clients, accepted));
        }
    }

    #[test]
    fn a_dual_stack_listener_has_v4_mapped_connections() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let sockets = of_port(port, Detail::TcpInfo);
        let child =
            sockets.iter().find(|socket| socket.state == state::ESTABLISHED).expect("the child");
        assert_eq!(child.family, AF_INET6);
        assert_eq!(child.remote_address, mapped("127.0.0.1".parse().unwrap()));
        assert_eq!(child.remote_port, client.local_addr().unwrap().port());
        assert_eq!(child.info.map(|info| info.unacked), Some(0));
    }

    #[test]
    fn a_peer_is_silent_after_two_unanswered_probes() {
        let peer = |probes, retransmits, last_ack_recv_ms| {
            let last_data_recv_ms = 90_000;
            TcpInfo {
                probes,
                retransmits,
                last_ack_recv_ms,
                last_data_recv_ms,
                ..TcpInfo::default()
            }
            .peer()
        };
        assert_eq!(peer(0, 0, 500), Peer::Live);
        assert_eq!(peer(1, 0, 500), Peer::Live);
        assert_eq!(peer(0, 1, 70_000), Peer::Idle);
        assert_eq!(peer(2, 0, 70_000), Peer::Silent);
        assert_eq!(peer(0, 2, 500), Peer::Silent);
    }

    #[test]
    fn a_short_tcp_info_reads_as_zero_past_its_end() {
        assert_eq!(TcpInfo::parse(&[]), TcpInfo::default());
        let mut bytes = vec![0; 28];
        bytes[3] = 2;
        bytes[24] = 5;
        assert_eq!(TcpInfo::parse(&bytes), TcpInfo { probes: 2, unacked: 5, ..TcpInfo::default() });
    }
}
