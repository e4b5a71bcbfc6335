//! Passive handshakes that have no connection yet. The kernel side takes out those that get one; the
//! others are given up here, and become rows of their own.

use std::time::Duration;

use anyhow::Context;
use aya::maps::Map;
use probe_common::{
    connection::{Connection, class, flag as connection_flag},
    handshake::{Handshake, Pair, flag},
    state::{self, role},
};

use super::entries::Entries;
use crate::handshake::follow::{Http, Observed};

/// After this long without a packet the kernel has given up too: five retransmissions of the SYN-ACK
/// take 63 s.
pub const GIVE_UP: Duration = Duration::from_secs(70);

/// The map of handshakes.
pub struct Pending(Entries<Pair, Handshake>);

impl Pending {
    /// # Errors
    /// Where it is no such map.
    pub fn new(map: Map) -> anyhow::Result<Self> {
        Entries::new(map).map(Self).context("cannot use HANDSHAKES")
    }

    /// Every handshake that waits or was not taken out yet.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn all(&self) -> anyhow::Result<Vec<Observed>> {
        let entries = self.entries()?;
        let waiting = entries.iter().filter(|(_, found)| found.flags & flag::TAKEN_OVER == 0);
        // One that was reset a moment ago is over, and still to be taken out.
        Ok(waiting.map(|(pair, found)| observed(pair, found, found.rst_ns)).collect())
    }

    /// None waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out those that have failed by now.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn give_up(&mut self, now_ns: u64) -> anyhow::Result<Vec<Observed>> {
        let mut failed = Vec::new();
        for (pair, handshake) in self.entries()? {
            if handshake.flags & flag::TAKEN_OVER != 0 {
                self.0.remove(&pair);
                continue;
            }
            let at_once = handshake.flags & flag::RST_RECEIVED != 0;
            let last = handshake.syn_ns.max(handshake.syn_ack_ns).max(handshake.ack_ns);
            if at_once || Duration::from_nanos(now_ns.saturating_sub(last)) > GIVE_UP {
                let ended = if handshake.rst_ns == 0 { now_ns } else { handshake.rst_ns };
                failed.push(observed(&pair, &handshake, ended));
                // It is gone if its connection was established just now.
                self.0.remove(&pair);
            }
        }
        Ok(failed)
    }

    fn entries(&self) -> anyhow::Result<Vec<(Pair, Handshake)>> {
        self.0.all().context("cannot read the handshakes")
    }
}

/// A handshake as a connection that was never established.
fn observed(pair: &Pair, handshake: &Handshake, closed_ns: u64) -> Observed {
    // SAFETY: all-zero is a valid Connection.
    let mut connection: Connection = unsafe { std::mem::zeroed() };
    connection.local_address = pair.local_address;
    connection.remote_address = pair.remote_address;
    connection.local_port = pair.local_port;
    connection.remote_port = pair.remote_port;
    connection.netns = pair.netns;
    connection.family = (if pair.is_v4() { libc::AF_INET } else { libc::AF_INET6 }) as u8;
    if handshake.syns > 1 {
        connection.flags |= connection_flag::SYN_RETRANSMITTED;
    }
    connection.cgroup_id = handshake.cgroup_id;
    connection.slot = Connection::NO_SLOT;
    connection.role = role::PASSIVE;
    connection.class = class::SILENT;
    connection.seen_class = class::SILENT;
    connection.state = if closed_ns == 0 { state::SYN_RECV } else { state::CLOSE };
    connection.first_seen_ns = handshake.syn_ns;
    connection.syn_received_ns = handshake.syn_ns;
    connection.syn_ack_sent_ns = handshake.syn_ack_ns;
    connection.closed_ns = closed_ns;
    connection.retransmits = u32::from(handshake.syn_acks.saturating_sub(1));
    Observed {
        connection,
        http: Http::NONE,
        handshake_flags: handshake.flags,
        syn_acks: u32::from(handshake.syn_acks),
    }
}
