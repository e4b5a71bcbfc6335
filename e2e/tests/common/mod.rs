//! Sockets whose ports and queues a test decides on.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

/// A listener on a free port of loopback with an accept queue of this length.
pub fn listen(backlog: i32) -> TcpListener {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &ANY).unwrap();
    rustix::net::listen(&socket, backlog).unwrap();
    socket.into()
}

/// `TCP_DEFER_ACCEPT`: accepts nothing before its first bytes are here.
pub fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 10;
    // SAFETY: a live socket, and a pointer to an int with its size.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds).try_into().unwrap(),
        )
    };
    assert_eq!(result, 0, "TCP_DEFER_ACCEPT: {}", std::io::Error::last_os_error());
}

/// A client's socket that has its port before it connects.
pub struct Bound(OwnedFd);

pub fn bound() -> Bound {
    with_flags(SocketFlags::empty())
}

fn with_flags(flags: SocketFlags) -> Bound {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    rustix::net::bind(&socket, &ANY).unwrap();
    Bound(socket)
}

pub fn client_port(client: &Bound) -> u16 {
    let address: SocketAddr = rustix::net::getsockname(&client.0).unwrap().try_into().unwrap();
    address.port()
}

impl Bound {
    pub fn connect(&self, to: SocketAddr) -> rustix::io::Result<()> {
        rustix::net::connect(&self.0, &to)
    }
}

/// A connect that waits for its answer; given up on drop.
pub struct Waiting {
    pub port: u16,
    _socket: Bound,
}

impl Waiting {
    pub fn start(to: SocketAddr) -> Self {
        let socket = with_flags(SocketFlags::NONBLOCK);
        assert_eq!(socket.connect(to), Err(rustix::io::Errno::INPROGRESS));
        Self { port: client_port(&socket), _socket: socket }
    }
}
