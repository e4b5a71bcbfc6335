//! How connections end.

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::time::Duration;

use socket2::Socket;

use super::worker::{Pair, Worker};

/// Reads until the other end is done, or has reset the connection.
pub(super) fn read_to_end(socket: &Socket) {
    let mut rest = [0; 1024];
    let mut reader: &Socket = socket;
    while reader.read(&mut rest).is_ok_and(|n| n > 0) {}
}

pub(super) fn fin_by_client(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    drop(client);
    read_to_end(&server);
    Ok(())
}

pub(super) fn fin_by_server(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    server.send(b"bye")?;
    drop(server);
    read_to_end(&client);
    Ok(())
}

/// Several at a time, so that with packets steered to another CPU some FINs cross on the way.
pub(super) fn fin_by_both_at_once(worker: &mut Worker) -> io::Result<()> {
    let pairs = (0..4).map(|_| worker.pair()).collect::<io::Result<Vec<Pair>>>()?;
    let (clients, servers): (Vec<_>, Vec<_>) =
        pairs.into_iter().map(|pair| (pair.client, pair.server)).unzip();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(clients));
        drop(servers);
    });
    Ok(())
}

pub(super) fn rst_by_linger_0(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    let (ending, other) = if worker.rng.bool() { (client, server) } else { (server, client) };
    ending.set_linger(Some(Duration::ZERO))?;
    drop(ending);
    if worker.rng.bool() {
        read_to_end(&other);
    }
    Ok(())
}

/// A socket that is closed with bytes unread answers by a RST.
pub(super) fn rst_by_unread_bytes(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    client.send(b"never read")?;
    let mut peeked = [std::mem::MaybeUninit::uninit(); 1];
    server.recv_with_flags(&mut peeked, libc::MSG_PEEK)?;
    drop(server);
    read_to_end(&client);
    Ok(())
}

/// One direction ends, the other goes on; some stay like that.
pub(super) fn half_close(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    client.shutdown(Shutdown::Write)?;
    read_to_end(&server);
    server.send(b"still here")?;
    if worker.rng.u8(0..4) == 0 {
        worker.hold([client, server]);
        return Ok(());
    }
    drop(server);
    read_to_end(&client);
    Ok(())
}

/// Stays open for a while, and over barriers.
pub(super) fn held(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    worker.hold([client, server]);
    Ok(())
}

/// The peer takes no more bytes, until the kernel gives up.
pub(super) fn time_out_unanswered(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    client.set_tcp_user_timeout(Some(Duration::from_millis(20)))?;
    server.set_recv_buffer_size(2048)?;
    client.set_nonblocking(true)?;
    let bytes = [0; 65536];
    let mut ended = None;
    for _ in 0..200 {
        match client.send(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => {
                ended = Some(error.kind());
                break;
            }
        }
    }
    drop(server);
    match ended {
        Some(io::ErrorKind::TimedOut) => Ok(()),
        other => Err(io::Error::other(format!("ended by {other:?}, expected a time-out"))),
    }
}
