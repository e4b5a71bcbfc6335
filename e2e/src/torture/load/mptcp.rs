//! Multipath TCP: the connection is a socket of another protocol, and its subflows are TCP sockets.

use std::io;

use socket2::{Domain, Protocol, Socket};

use super::endings::read_to_end;
use super::worker::{Worker, accept_from, listener, port_of, stream};

/// Fails where the kernel has no MPTCP.
pub(super) fn mptcp(worker: &mut Worker) -> io::Result<()> {
    let port = worker.port_of_its_own(5);
    let family = worker.family();
    let listener = worker.at_server(|| listener(Domain::IPV6, Protocol::MPTCP, port, 8))?;
    // The other end may know nothing of it, and then both fall back to TCP.
    let protocol = if worker.rng.bool() { Protocol::MPTCP } else { Protocol::TCP };
    let client: Socket = stream(family.domain(), protocol)?;
    client.connect(&worker.target(family, port))?;
    let server = accept_from(&listener, port_of(&client.local_addr()?))?;
    client.send(b"hello")?;
    drop(client);
    read_to_end(&server);
    Ok(())
}
