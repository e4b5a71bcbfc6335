//! An address at which SYNs get no answer, as from behind a firewall that drops them: a listener whose
//! socket filter lets nothing in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

#[derive(Debug)]
pub(super) struct SilentAddress {
    _listener: Socket,
    pub(super) address: SocketAddr,
}

impl SilentAddress {
    pub(super) fn open() -> io::Result<Self> {
        /// `ret 0`: of each packet, nothing is taken.
        const RETURN: u16 = 0x06;

        let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        listener.listen(1)?;
        let address = listener.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("it has no internet address"))?;
        Ok(SilentAddress { _listener: listener, address })
    }
}
