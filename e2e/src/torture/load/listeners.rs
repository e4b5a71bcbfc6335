//! What listeners do to connections that nobody has accepted.

use std::io;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket};

use super::worker::{Worker, listener, stream};

/// Connects without waiting; what does not fit in the queue goes on trying until it is dropped.
fn rush(worker: &mut Worker, count: usize) -> io::Result<Vec<Socket>> {
    let family = worker.family();
    let target = worker.target(family, worker.second_port());
    let clients: Vec<Socket> =
        (0..count).map(|_| worker.socket(family)).collect::<io::Result<_>>()?;
    for client in &clients {
        client.set_nonblocking(true)?;
        let _ = client.connect(&target);
    }
    Ok(clients)
}

/// The kernel resets what still waits.
pub(super) fn closed_with_full_queue(worker: &mut Worker) -> io::Result<()> {
    let listener = worker.listen(worker.second_port(), 3)?;
    let _clients = rush(worker, 8)?;
    std::thread::sleep(Duration::from_millis(worker.rng.u64(0..3)));
    drop(listener);
    Ok(())
}

/// Reset by its client before anybody accepts it; `accept` returns it all the same.
pub(super) fn reset_in_the_accept_queue(worker: &mut Worker) -> io::Result<()> {
    let listener = worker.listen(worker.second_port(), 8)?;
    let clients = rush(worker, 4)?;
    for client in clients {
        client.set_linger(Some(Duration::ZERO))?;
        drop(client);
        if worker.rng.bool() {
            listener.set_nonblocking(true)?;
            let _ = listener.accept();
        }
    }
    Ok(())
}

/// Several listeners share a port; one leaves with its queue.
pub(super) fn reuse_port_group(worker: &mut Worker) -> io::Result<()> {
    let port = worker.port_of_its_own(3);
    let mut group: Vec<Socket> = worker.at_server(|| {
        (0..4)
            .map(|_| {
                let socket = stream(Domain::IPV6, Protocol::TCP)?;
                socket.set_reuse_port(true)?;
                socket.set_reuse_address(true)?;
                let any: std::net::SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
                socket.bind(&any.into())?;
                socket.listen(16)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .collect()
    })?;
    let family = worker.family();
    let target = worker.target(family, port);
    let mut clients = Vec::new();
    for _ in 0..16 {
        let client = worker.socket(family)?;
        client.connect(&target)?;
        clients.push(client);
    }
    let leaving = group.swap_remove(worker.rng.usize(0..group.len()));
    let accepted: Vec<Socket> = group
        .iter()
        .flat_map(|listener| std::iter::from_fn(|| listener.accept().ok()))
        .map(|(socket, _)| socket)
        .collect();
    drop(leaving);
    drop(clients);
    drop(accepted);
    Ok(())
}

/// Connections that their clients think they have, and the server never got.
pub(super) fn more_than_the_queue_takes(worker: &mut Worker) -> io::Result<()> {
    let port = worker.second_port();
    let listener = worker.at_server(|| listener(Domain::IPV6, Protocol::TCP, port, 1))?;
    let clients = rush(worker, 12)?;
    std::thread::sleep(Duration::from_millis(worker.rng.u64(0..30)));
    drop(clients);
    std::thread::sleep(Duration::from_millis(worker.rng.u64(0..5)));
    drop(listener);
    Ok(())
}
