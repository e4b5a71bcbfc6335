//! Sockets that go from one process to another, and that outlive their process and their cgroup.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::Socket;

use super::endings::read_to_end;
use super::worker::{Pair, Worker};

/// This program again, as another process in the thread's namespace.
fn myself(what: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(what).stderr(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// A child holds the server's end; its parent has closed it, and kills the child or lets it finish.
pub(super) fn fork_and_inherit(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    let mut child = myself("hold")?.stdin(OwnedFd::from(server)).spawn()?;
    client.send(b"are you there?")?;
    if worker.rng.bool() {
        child.kill()?;
        read_to_end(&client);
    } else {
        drop(client);
    }
    child.wait()?;
    Ok(())
}

/// The child of [`fork_and_inherit`]: reads from the socket that is its standard input to the end.
///
/// # Errors
/// None; a reset is an end, too.
pub fn hold() -> io::Result<()> {
    let mut rest = [0; 256];
    while io::stdin().read(&mut rest).is_ok_and(|n| n > 0) {}
    Ok(())
}

/// For a moment only a message on its way holds the socket.
pub(super) fn descriptor_in_flight(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    let (there, here) = UnixStream::pair()?;
    send_descriptor(&there, server.as_fd())?;
    drop(server);
    if worker.rng.u8(0..4) == 0 {
        // It is never received: the socket ends with the message.
        drop((there, here));
        read_to_end(&client);
        return Ok(());
    }
    let server: Socket = receive_descriptor(&here)?.into();
    drop(client);
    read_to_end(&server);
    Ok(())
}

/// A socket is over only when its last descriptor is.
pub(super) fn duplicated_descriptor(worker: &mut Worker) -> io::Result<()> {
    let Pair { client, server } = worker.pair()?;
    let second = server.try_clone()?;
    drop(server);
    client.send(b"x")?;
    drop(client);
    read_to_end(&second);
    Ok(())
}

/// A process in a cgroup of its own makes a listener and a connection, hands them over and ends; its
/// cgroup is removed, and the sockets live on.
pub(super) fn outlives_process_and_cgroup(worker: &mut Worker) -> io::Result<()> {
    let (here, there) = UnixStream::pair()?;
    let cgroup = crate::cgroup::Cgroup::new("orphan");
    let port = worker.port_of_its_own(4).to_string();
    let mut child =
        myself("orphan")?.arg(cgroup.path()).arg(&port).stdin(OwnedFd::from(there)).spawn()?;
    let sockets: io::Result<Vec<Socket>> =
        (0..3).map(|_| receive_descriptor(&here).map(Socket::from)).collect();
    let status = child.wait()?;
    drop(cgroup);
    let sockets = sockets?;
    if !status.success() {
        return Err(io::Error::other(format!("the orphan's parent ended by {status}")));
    }
    worker.hold(sockets);
    Ok(())
}

/// The process of [`outlives_process_and_cgroup`].
///
/// # Errors
/// Where the cgroup can't be entered, or a socket can't be made.
pub fn orphan(cgroup: &str, port: u16) -> io::Result<()> {
    fs::write(format!("{cgroup}/cgroup.procs"), std::process::id().to_string())?;
    let any: SocketAddr = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let listener = TcpListener::bind(any)?;
    let client = TcpStream::connect(any)?;
    let (server, _) = listener.accept()?;
    let to = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    send_descriptor(&to, listener.as_fd())?;
    send_descriptor(&to, client.as_fd())?;
    send_descriptor(&to, server.as_fd())
}

fn send_descriptor(to: &UnixStream, descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(to, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_descriptor(from: &UnixStream) -> io::Result<OwnedFd> {
    from.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no descriptor came"))
}
