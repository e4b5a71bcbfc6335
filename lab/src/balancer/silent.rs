//! An address at which SYNs get no answer, without a firewall: a listener whose accept queue is full.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The sockets that keep the queue full.
#[derive(Debug)]
pub(super) struct SilentAddress {
    _listener: Socket,
    _waiting: Socket,
    pub(super) address: SocketAddr,
}

impl SilentAddress {
    pub(super) fn open() -> io::Result<Self> {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
        let listener = new()?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        // A queue of length n takes n + 1.
        listener.listen(0)?;
        let waiting = new()?;
        waiting.connect_timeout(&listener.local_addr()?, Duration::from_secs(5))?;
        let address = listener.local_addr()?.as_socket();
        let address =
            address.ok_or_else(|| io::Error::other("the address is not of the internet"))?;
        Ok(SilentAddress { _listener: listener, _waiting: waiting, address })
    }
}
