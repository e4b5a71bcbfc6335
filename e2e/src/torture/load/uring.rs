//! Connections that io_uring accepts, which no system call of the process shows.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::ptr;

use io_uring::{IoUring, opcode, types};
use socket2::Socket;

use super::endings::read_to_end;
use super::worker::Worker;

/// Fails where the kernel has no io_uring, or does not allow it.
pub(super) fn accept(worker: &mut Worker) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    let listener = worker.listen(worker.second_port(), 4)?;
    let entry =
        opcode::Accept::new(types::Fd(listener.as_raw_fd()), ptr::null_mut(), ptr::null_mut())
            .build();
    // SAFETY: the entry holds no pointers, and `listener` stays open until its completion is read.
    unsafe { ring.submission().push(&entry).map_err(io::Error::other)? };
    ring.submit()?;
    let family = worker.family();
    let client = worker.socket(family)?;
    // The completion interrupts a call that waits.
    client.set_nonblocking(true)?;
    let _ = client.connect(&worker.target(family, worker.second_port()));
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let result = ring.completion().next().map_or(-libc::EIO, |completed| completed.result());
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else has it.
    let server = unsafe { Socket::from_raw_fd(result) };
    drop(client);
    read_to_end(&server);
    Ok(())
}
