//! The kernel's own numbers of TCP sockets in a network namespace. A walk or a dump passes over every
//! socket of the host, whichever namespace it is for; these tell where there is nothing to be found.

use std::{fs, io};

use crate::identity::netns::{Inside, Netns};

/// Sockets in `time_wait`, and what is left of orphans in `fin_wait_2`.
///
/// # Errors
/// When `/proc` says nothing of them.
pub fn left_over(_: &Inside) -> io::Result<u64> {
    number(&read("sockstat")?, "TCP:", "tw").ok_or_else(|| missing("tw"))
}

/// Whether no full socket, IPv4 or IPv6, is in any state but `close`.
///
/// # Errors
/// When the namespace cannot be entered, and as [`left_over`].
pub fn is_empty(netns: &Netns) -> io::Result<bool> {
    let text = netns
        .run(|| io::Result::Ok(read("sockstat")? + &read("sockstat6").unwrap_or_default()))??;
    let v4 = number(&text, "TCP:", "inuse").ok_or_else(|| missing("inuse"))?;
    // Without IPv6 there is no such line.
    Ok(v4 == 0 && number(&text, "TCP6:", "inuse").unwrap_or(0) == 0)
}

fn read(file: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/thread-self/net/{file}"))
}

/// `TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1`, `tw` → 2
fn number(sockstat: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split(' ');
    words.find(|&word| word == name)?;
    words.next()?.parse().ok()
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no `{name}` of TCP in sockstat"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_numbers_are_read() {
        let text = "sockets: used 7\nTCP: inuse 5 orphan 0 tw 23 alloc 7 mem 1\nTCP6: inuse 9\n";
        assert_eq!(number(text, "TCP:", "tw"), Some(23));
        assert_eq!(number(text, "TCP:", "inuse"), Some(5));
        assert_eq!(number(text, "TCP6:", "inuse"), Some(9));
        assert_eq!(number("TCP: inuse 5", "TCP:", "tw"), None);
    }

    #[test]
    fn a_namespace_with_a_listener_is_not_empty() {
        let own = Netns::current().unwrap();
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_empty(&own).unwrap());
    }
}
