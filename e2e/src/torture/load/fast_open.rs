//! TCP Fast Open: data on the SYN, and an accept that may come before the handshake is over. The
//! namespaces allow it for every listener, with and without a cookie.

use std::io;

use super::endings::read_to_end;
use super::worker::{Worker, accept_from, port_of};

pub(super) fn fast_open(worker: &mut Worker) -> io::Result<()> {
    let family = worker.family();
    let client = worker.socket(family)?;
    client.send_to_with_flags(b"early", &worker.target(family, worker.port), libc::MSG_FASTOPEN)?;
    let server = accept_from(&worker.listener, port_of(&client.local_addr()?))?;
    if worker.rng.bool() {
        drop(client);
        read_to_end(&server);
    } else {
        drop(server);
        read_to_end(&client);
    }
    Ok(())
}
