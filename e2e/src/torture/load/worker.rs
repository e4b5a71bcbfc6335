//! One thread: the two places that its sockets are made in, its listener, and what it holds.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// No episode waits for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads of a load process, whose ports follow each other.
const MOST_WORKERS: u16 = 10;
/// Ports that they use.
pub(in crate::torture) const PORTS: u16 = 6 * MOST_WORKERS;
/// Pairs that a thread holds while it goes on.
const HELD: usize = 24;
/// As many as may wait while another episode's leftovers are looked through.
pub(super) const BACKLOG: i32 = 64;

/// A namespace, and its addresses.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) netns: File,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

/// How the client's socket is made, and by which address it reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    /// IPv4 from an IPv6 socket.
    Mapped,
}

impl Family {
    pub(super) fn domain(self) -> Domain {
        if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 }
    }

    pub(super) fn address(self, side: &Side, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (side.v4, port).into(),
            Self::V6 => (side.v6, port).into(),
            Self::Mapped => (side.v4.to_ipv6_mapped(), port).into(),
        }
    }
}

/// Both ends of a connection.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: Socket,
    pub(super) server: Socket,
}

pub(super) struct Worker {
    pub(super) rng: fastrand::Rng,
    pub(super) port: u16,
    pub(super) server: Arc<Side>,
    pub(super) client: Arc<Side>,
    pub(super) listener: Socket,
    held: VecDeque<Vec<Socket>>,
}

impl Worker {
    pub(super) fn new(
        seed: u64,
        port: u16,
        server: Arc<Side>,
        client: Arc<Side>,
    ) -> io::Result<Self> {
        enter(&server)?;
        let listener = listener(Domain::IPV6, Protocol::TCP, port, BACKLOG)?;
        enter(&client)?;
        let rng = fastrand::Rng::with_seed(seed);
        Ok(Self { rng, port, server, client, listener, held: VecDeque::new() })
    }

    pub(super) fn family(&mut self) -> Family {
        [Family::V4, Family::V6, Family::Mapped][self.rng.usize(0..3)]
    }

    /// The server's address by that family.
    pub(super) fn target(&self, family: Family, port: u16) -> SockAddr {
        family.address(&self.server, port).into()
    }

    /// A socket in the client's namespace.
    pub(super) fn socket(&self, family: Family) -> io::Result<Socket> {
        stream(family.domain(), Protocol::TCP)
    }

    /// Makes sockets in the server's namespace.
    pub(super) fn at_server<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        enter(&self.server)?;
        let made = make();
        enter(&self.client)?;
        made
    }

    /// A second listener, at any address of the server.
    pub(super) fn listen(&self, port: u16, backlog: i32) -> io::Result<Socket> {
        self.at_server(|| listener(Domain::IPV6, Protocol::TCP, port, backlog))
    }

    /// A port beside the main one, so that few populations are made.
    pub(super) fn second_port(&self) -> u16 {
        self.port_of_its_own(1)
    }

    /// One for a topic that shares its port with no other: the 2nd to the 5th.
    pub(super) fn port_of_its_own(&self, number: u16) -> u16 {
        self.port + number * MOST_WORKERS
    }

    /// An accepted connection to the worker's port.
    pub(super) fn pair(&mut self) -> io::Result<Pair> {
        let family = self.family();
        self.pair_by(family)
    }

    pub(super) fn pair_by(&self, family: Family) -> io::Result<Pair> {
        let client = self.socket(family)?;
        client.connect(&self.target(family, self.port))?;
        let server = accept_from(&self.listener, port_of(&client.local_addr()?))?;
        Ok(Pair { client, server })
    }

    /// Keeps these open while other episodes run; the oldest go.
    pub(super) fn hold(&mut self, sockets: impl IntoIterator<Item = Socket>) {
        self.held.push_back(sockets.into_iter().collect());
        if self.held.len() > HELD
            && let Some(oldest) = self.held.pop_front()
        {
            for socket in oldest {
                if self.rng.bool() {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
            }
        }
    }
}

pub(super) fn enter(side: &Side) -> io::Result<()> {
    move_into_link_name_space(side.netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

pub(super) fn stream(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Listens at every address of the namespace that the thread is in.
pub(super) fn listener(
    domain: Domain,
    protocol: Protocol,
    port: u16,
    backlog: i32,
) -> io::Result<Socket> {
    let socket = stream(domain, protocol)?;
    socket.set_reuse_address(true)?;
    let any: SocketAddr = match domain {
        Domain::IPV4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        _ => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    socket.bind(&any.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Accepts what came from this port; what an earlier episode left in the queue is closed.
pub(super) fn accept_from(listener: &Socket, port: u16) -> io::Result<Socket> {
    loop {
        let (socket, from) = listener.accept()?;
        if port_of(&from) == port {
            socket.set_read_timeout(Some(PATIENCE))?;
            return Ok(socket);
        }
    }
}

pub(super) fn port_of(address: &SockAddr) -> u16 {
    address.as_socket().map_or(0, |address| address.port())
}
