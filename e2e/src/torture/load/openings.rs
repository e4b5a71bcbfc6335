//! How connections begin, or do not.

use std::io;
use std::time::Duration;

use rustix::net::connect_unspec;
use socket2::Socket;

use super::endings::read_to_end;
use super::worker::{Pair, Worker, accept_from, port_of};

/// Nobody listens there now; at other times somebody does.
pub(super) fn refused(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let target = worker.target(family, worker.second_port());
    // Made once with a listener, so that the population has a connection to begin with.
    let listener = worker.listen(worker.second_port(), 4)?;
    worker.socket(family)?.connect(&target)?;
    drop(listener);
    match worker.socket(family)?.connect(&target) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(io::Error::other(format!("{other:?}, expected to be refused"))),
    }
}

/// A SYN that a full queue leaves unanswered, given up by its sender.
pub(super) fn syn_sent_then_closed(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let target = worker.target(family, worker.second_port());
    let _listener = worker.listen(worker.second_port(), 0)?;
    let first = worker.socket(family)?;
    first.connect(&target)?;
    let unanswered: Vec<Socket> =
        (0..3).map(|_| worker.socket(family)).collect::<io::Result<_>>()?;
    for socket in &unanswered {
        socket.set_nonblocking(true)?;
        let _ = socket.connect(&target);
    }
    std::thread::sleep(Duration::from_millis(worker.rng.u64(0..5)));
    Ok(())
}

/// One socket, one cookie, several connections.
pub(super) fn connect_again_on_one_socket(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let target = worker.target(family, worker.port);
    let client = worker.socket(family)?;
    for _ in 0..worker.rng.u8(2..5) {
        client.connect(&target)?;
        let server = accept_from(&worker.listener, port_of(&client.local_addr()?))?;
        connect_unspec(&client)?;
        read_to_end(&server);
    }
    Ok(())
}

/// A socket connected to itself: both ends send their SYN first, and both FINs cross.
pub(super) fn simultaneous_open_and_close(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let own = worker.port_of_its_own(2);
    let socket = worker.socket(family)?;
    socket.set_reuse_address(true)?;
    let address = family.address(&worker.client, own).into();
    socket.bind(&address)?;
    socket.connect(&address)?;
    socket.send(b"to myself")?;
    if worker.rng.bool() {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// The server's end waits in TIME_WAIT; a SYN from the same port takes it over.
pub(super) fn time_wait_reused(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let Pair { client, server } = worker.pair_by(family)?;
    let local = client.local_addr()?;
    drop(server);
    read_to_end(&client);
    drop(client);
    let again = worker.socket(family)?;
    again.set_reuse_address(true)?;
    again.bind(&local)?;
    again.connect(&worker.target(family, worker.port))?;
    let server = accept_from(&worker.listener, port_of(&local))?;
    again.set_linger(Some(Duration::ZERO))?;
    drop(again);
    read_to_end(&server);
    Ok(())
}

/// The client's port is known before the connection is.
pub(super) fn bound_before_connect(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let client = worker.socket(family)?;
    client.bind(&family.address(&worker.client, 0).into())?;
    client.connect(&worker.target(family, worker.port))?;
    let server = accept_from(&worker.listener, port_of(&client.local_addr()?))?;
    drop(server);
    read_to_end(&client);
    Ok(())
}
