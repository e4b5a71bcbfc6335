//! A server that gives every HTTP request the same answer, right or wrong.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

/// Serves until the test process ends.
///
/// # Panics
/// If no port is free.
#[must_use]
pub fn always(status: &str, body: &str) -> SocketAddr {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                // One read is one request: they are small, and come whole over loopback.
                while stream.read(&mut request).is_ok_and(|n| n > 0) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// An address where nobody listens.
///
/// # Panics
/// If no port is free.
#[must_use]
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address")
}
