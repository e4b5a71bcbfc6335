//! What the kernel says by ways that are not ours: `ss` and `/proc/net/snmp`.

use std::time::{Duration, Instant};

use crate::net::Place;
use crate::process;

/// Sockets in a state (`ss` names: `established`, `close-wait`, …), with `ss`'s own filter, e.g.
/// `sport = :8080`; empty for all.
///
/// # Panics
/// If `ss` fails.
#[must_use]
pub fn ss(place: &Place, state: &str, filter: &str) -> usize {
    let mut command = place.command("ss");
    command.args(["-Htn", "state", state]);
    if !filter.is_empty() {
        command.arg(filter);
    }
    process::finish(&mut command).success("ss").lines().count()
}

/// `CurrEstab` of the namespace. Kernels of late (6.18 is one) count `close_wait` in it as well, so it
/// is compared after the server has closed its ends.
///
/// # Panics
/// If `/proc/net/snmp` has no such field.
#[must_use]
pub fn curr_estab(place: &Place) -> usize {
    tcp_counter(place, "CurrEstab")
}

/// One of the namespace's own TCP counters, by its name in `/proc/net/snmp`.
///
/// # Panics
/// If there is no such field.
#[must_use]
pub fn tcp_counter(place: &Place, field: &str) -> usize {
    let text = process::finish(place.command("cat").arg("/proc/net/snmp")).success("cat");
    snmp_field(&text, "Tcp", field).unwrap_or_else(|| panic!("no {field} in /proc/net/snmp"))
}

fn snmp_field(text: &str, protocol: &str, field: &str) -> Option<usize> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let index = lines.next()?.split_whitespace().position(|name| name == field)?;
    lines.next()?.split_whitespace().nth(index)?.parse().ok()
}

/// What an agreed number of connections looks like once the kernel is done with it.
///
/// # Panics
/// If `read` has not become `expected` after ten seconds.
#[track_caller]
pub fn wait_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    read: impl FnMut() -> T,
) {
    wait_equal_within(Duration::from_secs(10), what, expected, read);
}

/// Like [`wait_equal`], with patience of one's own.
///
/// # Panics
/// If `read` has not become `expected` by then.
#[track_caller]
pub fn wait_equal_within<T: PartialEq + std::fmt::Debug>(
    patience: Duration,
    what: &str,
    expected: &T,
    mut read: impl FnMut() -> T,
) {
    let deadline = Instant::now() + patience;
    loop {
        let now = read();
        if now == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {now:?}, expected {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn CurrEstab\nTcp: 200 -1 57\n";
        assert_eq!(snmp_field(text, "Tcp", "CurrEstab"), Some(57));
        assert_eq!(snmp_field(text, "Tcp", "OutRsts"), None);
        assert_eq!(snmp_field("", "Tcp", "CurrEstab"), None);
    }
}
