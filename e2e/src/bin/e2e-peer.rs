//! One end of many plain TCP connections, driven line by line through stdin, so that a test knows
//! exactly how many connections there are and how each ended. Runs on the host, in a namespace or in
//! a container. Each command is answered by one line.
//!
//! ```text
//! listen ADDRESS:PORT       ok             accepts everything from now on
//! listen-each ADDRESS A B   ok             listens on ports A to B, and accepts nothing
//! connect ADDRESS:PORT N    ok             opens N connections
//! try-each ADDRESS A B      N              opens one to each of the ports A to B; N were not refused
//! held                      N              connections this end holds
//! send                      ok             one byte on each
//! user-timeout MS           ok             TCP_USER_TIMEOUT on each
//! fin N                     ok             closes the N oldest by FIN
//! rst N                     ok             closes the N oldest by RST
//! reap                      FIN RST TIMEOUT  closes those that the other end ended, by how
//! reconnect ADDRESS:PORT N  ok             N times on one socket: connect, abort by connect(AF_UNSPEC)
//! cgroup PATH               ok             moves this process into a cgroup
//! ```

use std::collections::VecDeque;
use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_tcp_user_timeout};
use rustix::net::{AddressFamily, SocketType, connect, connect_unspec, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Held = Arc<Mutex<VecDeque<TcpStream>>>;
type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;

    let held = Held::default();
    let mut stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match act(&words, &held) {
            Ok(answer) => writeln!(stdout, "{answer}")?,
            Err(error) => writeln!(stdout, "error: {line}: {error}")?,
        }
    }
    Ok(())
}

fn act(words: &[&str], held: &Held) -> Result<String, Failure> {
    match *words {
        ["listen", address] => listen(address, held)?,
        ["listen-each", address, first, last] => {
            for port in first.parse()?..=last.parse::<u16>()? {
                // Nobody takes them back: they end with this process.
                std::mem::forget(TcpListener::bind((address, port))?);
            }
        }
        ["try-each", address, first, last] => {
            let mut opened = 0;
            for port in first.parse()?..=last.parse::<u16>()? {
                match TcpStream::connect((address, port)) {
                    Ok(stream) => held.lock().map_err(|_| "poisoned")?.push_back(stream),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                    Err(error) => return Err(format!("port {port}: {error}").into()),
                }
                opened += 1;
            }
            return Ok(opened.to_string());
        }
        ["connect", address, count] => {
            for _ in 0..count.parse()? {
                let stream = TcpStream::connect(address)?;
                held.lock().map_err(|_| "poisoned")?.push_back(stream);
            }
        }
        ["held"] => return Ok(held.lock().map_err(|_| "poisoned")?.len().to_string()),
        ["send"] => {
            for mut stream in held.lock().map_err(|_| "poisoned")?.iter() {
                stream.write_all(b"x")?;
            }
        }
        ["user-timeout", milliseconds] => {
            for stream in held.lock().map_err(|_| "poisoned")?.iter() {
                set_tcp_user_timeout(stream, milliseconds.parse()?)?;
            }
        }
        ["fin", count] => close(held, count.parse()?, None)?,
        ["rst", count] => close(held, count.parse()?, Some(Duration::ZERO))?,
        ["reap"] => return reap(held),
        ["reconnect", address, count] => reconnect(address.parse()?, count.parse()?)?,
        ["cgroup", path] => {
            std::fs::write(format!("{path}/cgroup.procs"), std::process::id().to_string())?;
        }
        _ => return Err("no such command".into()),
    }
    Ok("ok".to_owned())
}

fn listen(address: &str, held: &Held) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)?;
    // std's backlog of 128 drops SYNs when thousands arrive at once.
    rustix::net::listen(&listener, 4096)?;
    let held = Arc::clone(held);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            held.lock().expect("no holder panicked").push_back(stream);
        }
    });
    Ok(())
}

/// `linger` zero makes the kernel send a RST.
fn close(held: &Held, count: usize, linger: Option<Duration>) -> Result<(), Failure> {
    let mut held = held.lock().map_err(|_| "poisoned")?;
    if held.len() < count {
        return Err(format!("only {} connections are held", held.len()).into());
    }
    for mut stream in held.drain(..count) {
        set_socket_linger(&stream, linger)?;
        // Unread bytes would turn the FIN into a RST.
        stream.set_nonblocking(true)?;
        let mut rest = [0; 256];
        while stream.read(&mut rest).is_ok_and(|n| n > 0) {}
    }
    Ok(())
}

/// Closes what the other end has ended. Counts: FIN, RST, time-out.
fn reap(held: &Held) -> Result<String, Failure> {
    let (mut fin, mut rst, mut timeout) = (0, 0, 0);
    let mut other = None;
    held.lock().map_err(|_| "poisoned")?.retain_mut(|stream| {
        if let Err(error) = stream.set_nonblocking(true) {
            other = Some(error);
            return true;
        }
        let mut bytes = [0; 256];
        loop {
            return match stream.read(&mut bytes) {
                Ok(0) => {
                    fin += 1;
                    false
                }
                Ok(_) => continue,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => true,
                    ErrorKind::ConnectionReset => {
                        rst += 1;
                        false
                    }
                    ErrorKind::TimedOut => {
                        timeout += 1;
                        false
                    }
                    _ => {
                        other = Some(error);
                        true
                    }
                },
            };
        }
    });
    match other {
        Some(error) => Err(error.into()),
        None => Ok(format!("{fin} {rst} {timeout}")),
    }
}

/// Many connections on one socket: its cookie stays, so only a generation tells them apart.
fn reconnect(address: SocketAddr, count: usize) -> Result<(), Failure> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    for _ in 0..count {
        connect(&socket, &address)?;
        connect_unspec(&socket)?;
    }
    Ok(())
}
