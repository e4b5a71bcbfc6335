//! Addresses: source addresses for many connections, and names to addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};

use crate::error::LabError;

/// Connections that one source address carries to one destination: Linux has 28,232 ephemeral
/// ports by default, and some are in use.
const PER_SOURCE: u64 = 20_000;

/// The sources to spread `connections` over. Those asked for; else, on IPv4 loopback, as many
/// addresses from 127.0.0.2 up as are needed; else what the kernel chooses.
pub(crate) fn sources(asked: &[IpAddr], remote: SocketAddr, connections: u64) -> Vec<IpAddr> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    match remote.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && connections > PER_SOURCE => {
            let needed = u32::try_from(connections.div_ceil(PER_SOURCE)).unwrap_or(u32::MAX);
            let first = u32::from(Ipv4Addr::new(127, 0, 0, 2));
            (0..needed).map(|i| IpAddr::V4(Ipv4Addr::from(first + i))).collect()
        }
        _ => Vec::new(),
    }
}

/// Lets `bind` fix the address and `connect` choose the port, so that a port that is in TIME_WAIT
/// or in use towards another destination can be taken.
pub(crate) fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    set_ip_option(socket, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Lets the kernel choose this socket's port from these only (Linux 6.3). It silently ignores what
/// lies outside of `net.ipv4.ip_local_port_range`.
pub(crate) fn local_port_range(socket: &impl AsFd, first: u16, last: u16) -> io::Result<()> {
    /// From linux/in.h; libc does not have it.
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

    let range = (u32::from(last) << 16) | u32::from(first);
    set_ip_option(socket, IP_LOCAL_PORT_RANGE, range.cast_signed())
}

fn set_ip_option(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed, and the option's value is a live `c_int`
    // whose size is passed along.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first address of `host:port`.
pub(crate) fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, port).to_socket_addrs().map(|mut all| all.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(LabError::usage(format!("`{host}` has no address; check the name"))),
        Err(error) => Err(LabError::usage(format!(
            "cannot resolve `{host}`: {error}; check the name, or give an address"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_sources_grow_with_the_connections() {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        assert!(sources(&[], v4, 20_000).is_empty());
        assert!(sources(&[], v6, 50_000).is_empty());
        let many = sources(&[], v4, 40_001);
        assert_eq!(many.len(), 3);
        assert_eq!(many[0], "127.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn names_and_bracketed_addresses_resolve() {
        assert_eq!(resolve("[::1]", 80).unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(resolve("127.0.0.1", 80).unwrap(), "127.0.0.1:80".parse().unwrap());
        assert!(resolve("no.such.host.invalid", 80).unwrap_err().to_string().contains("resolve"));
    }
}
