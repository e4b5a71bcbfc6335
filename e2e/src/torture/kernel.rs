//! The truth at a barrier: what `ss` and `/proc/net/snmp` say.

use std::collections::BTreeMap;
use std::ops::Range;

use super::world::Named;
use crate::cgroup;
use crate::net::{Netns, Place};
use crate::peer::Peer;
use crate::process::finish;
use crate::truth;

/// A socket, as `ss` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) cookie: u64,
    pub(super) netns: u64,
    pub(super) cgroup_id: u64,
    /// The probe's name of it.
    pub(super) state: String,
    pub(super) local: String,
    pub(super) remote: String,
}

impl Socket {
    pub(super) fn ss_state(&self) -> String {
        ss_name(&self.state)
    }

    /// Half closed by the client's end of a connection to one of these ports.
    pub(super) fn is_half_closed_to(&self, ports: &Range<u16>) -> bool {
        let port = self.remote.rsplit(':').next().and_then(|port| port.parse().ok());
        self.ss_state() == MIXED && port.is_some_and(|port| ports.contains(&port))
    }
}

/// How `ss` calls a state of the probe's.
pub(super) fn ss_name(state: &str) -> String {
    if state == "listen" { "listening".to_owned() } else { state.replace('_', "-") }
}

/// Sockets by namespace, cgroup and state.
pub(super) type Totals = BTreeMap<(u64, u64, String), i64>;

/// States in which the kernel keeps whole sockets, which fire events.
pub(super) const STATES: [&str; 7] =
    ["established", "syn-sent", "fin-wait-1", "close-wait", "last-ack", "closing", "listening"];

/// The state in which some are whole, and most are mini sockets.
const MIXED: &str = "fin-wait-2";

/// Every whole TCP socket of the namespaces.
pub(super) fn sockets(places: &[Named]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for named in places {
        let mut command = named.place.command("ss");
        command.arg("-Htnoe");
        for state in STATES.into_iter().chain([MIXED]) {
            command.args(["state", state]);
        }
        let netns = named.place.inode();
        let text = finish(&mut command).success("ss");
        sockets.extend(text.lines().filter_map(|line| parse(line, netns)));
    }
    sockets
}

/// `None` for what is left of an orphan in FIN_WAIT_2: a mini socket, which ends by its timer.
fn parse(line: &str, netns: u64) -> Option<Socket> {
    if line.contains("timer:(timewait") {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let field = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let state = match words[0] {
        "ESTAB" => "established".to_owned(),
        other => other.to_lowercase().replace('-', "_"),
    };
    let cookie = field("sk:").unwrap_or_else(|| panic!("no cookie: {line}"));
    let cgroup = field("cgroup:").unwrap_or_else(|| panic!("no cgroup: {line}"));
    let cgroup_id = match cgroup.strip_prefix("unreachable:") {
        Some(id) => u64::from_str_radix(id, 16).expect("a number"),
        None => cgroup::id_of(format!("{}{cgroup}", cgroup::root())),
    };
    Some(Socket {
        cookie: u64::from_str_radix(cookie, 16).expect("a number"),
        netns,
        cgroup_id,
        state,
        local: words[3].to_owned(),
        remote: words[4].to_owned(),
    })
}

pub(super) fn count(sockets: &[Socket]) -> Totals {
    let mut totals = Totals::new();
    for socket in sockets.iter().filter(|socket| STATES.contains(&socket.ss_state().as_str())) {
        *totals.entry((socket.netns, socket.cgroup_id, socket.state.clone())).or_default() += 1;
    }
    totals
}

/// `CurrEstab` of the namespace.
pub(super) fn curr_estab(place: &Place) -> i64 {
    truth::curr_estab(place) as i64
}

/// Kernels of late count `close_wait` in `CurrEstab`, too. Found out by one such socket, in a
/// namespace where there is no other.
pub(super) fn curr_estab_has_close_wait(netns: &Netns) -> bool {
    let place = netns.place();
    let (mut server, mut client) = (Peer::start(&place), Peer::start(&place));
    server.listen("127.0.0.1:9000");
    client.connect("127.0.0.1:9000", 1);
    server.wait_held(1);
    client.fin(1);
    truth::wait_equal("sockets in close_wait", &1, || truth::ss(&place, "close-wait", ""));
    let counted = truth::curr_estab(&place) == 1;
    drop((server, client));
    truth::wait_equal("CurrEstab in the end", &0, || truth::curr_estab(&place));
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mini_sockets_are_left_out() {
        let line = "FIN-WAIT-2 0 0 10.77.0.2:31000 10.77.0.1:20000 timer:(timewait,59sec,0) ino:0 \
                    sk:1f";
        assert_eq!(parse(line, 1), None);
    }

    #[test]
    fn a_removed_cgroup_is_known_by_its_number() {
        let line = "ESTAB 0 0 127.0.0.1:20400 127.0.0.1:30001 ino:5 sk:1f \
                    cgroup:unreachable:2a <->";
        let socket = parse(line, 7).unwrap();
        assert_eq!((socket.cookie, socket.cgroup_id, socket.netns), (31, 42, 7));
        assert_eq!(socket.state, "established");
    }
}
