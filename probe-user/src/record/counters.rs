//! The kernel's own TCP counters of each network namespace, from `/proc/net/snmp` and
//! `/proc/net/netstat`.

use std::{borrow::Cow, collections::HashMap, fs, io};

use crate::identity::netns::Netns;

/// What says how handshakes fared and what was dropped; the rest is left alone.
const NAMES: [&str; 24] = [
    "CurrEstab",
    "ActiveOpens",
    "PassiveOpens",
    "AttemptFails",
    "EstabResets",
    "InSegs",
    "OutSegs",
    "RetransSegs",
    "InErrs",
    "OutRsts",
    "ListenOverflows",
    "ListenDrops",
    "SyncookiesSent",
    "SyncookiesRecv",
    "SyncookiesFailed",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "TCPSynRetrans",
    "TCPTimeouts",
    "TCPAbortOnData",
    "TCPAbortOnClose",
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPBacklogDrop",
];

/// Counters by their kernel names.
pub(crate) type Counters = HashMap<Cow<'static, str>, f64>;

/// The counters of a namespace now.
///
/// # Errors
/// When the namespace cannot be entered or its files cannot be read.
pub(crate) fn read(netns: &Netns) -> io::Result<Counters> {
    netns.run(|| {
        let mut counters = Counters::new();
        // `thread-self`: only the thread has entered the namespace, not the process.
        parse(&fs::read_to_string("/proc/thread-self/net/snmp")?, "Tcp:", &mut counters);
        parse(&fs::read_to_string("/proc/thread-self/net/netstat")?, "TcpExt:", &mut counters);
        Ok(counters)
    })?
}

/// Two lines per group: names, then values, both after the group's name.
fn parse(text: &str, group: &str, counters: &mut Counters) {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return };
    for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
        if let (Some(known), Ok(value)) =
            (NAMES.iter().find(|known| **known == name), value.parse())
        {
            counters.insert((*known).into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: MaxConn CurrEstab\nTcp: -1 997\n";
        let mut counters = Counters::new();
        parse(text, "Tcp:", &mut counters);
        assert_eq!(counters, Counters::from([("CurrEstab".into(), 997.0)]));
    }

    #[test]
    fn this_kernel_has_them_all() {
        let counters = read(&Netns::current().unwrap()).unwrap();
        for name in NAMES {
            assert!(counters.contains_key(name), "{name}");
        }
    }
}
