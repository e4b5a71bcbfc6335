//! Holds our counts against the kernel's own list of sockets (sock_diag).
//!
//! Neither a dump of the map nor one of the kernel is an instant, so single differences say nothing
//! under churn. A socket counts as drift only if nothing that happened meanwhile explains it: one
//! that both of two map dumps call established but the kernel's dump between them does not list, or
//! one that both of two kernel dumps list but the map dump between them lacks.

use std::{collections::HashSet, io};

use probe_common::{key::CountSlot, state};

use super::{
    sock_diag::{self, Detail},
    sockstat,
    source::Source,
};
use crate::{handshake::follow::Observed, identity::netns::Netns};

/// What an audit found, over all namespaces that could be entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub at_mono_ns: i64,
    /// Sockets that the kernel lists as established.
    pub listed: u64,
    /// Counted as established, and not there.
    pub extra: u64,
    /// There, and not counted.
    pub missing: u64,
}

impl Audit {
    /// Our count minus the kernel's: 0 is what is expected.
    #[must_use]
    pub fn drift(&self) -> i64 {
        self.extra.cast_signed() - self.missing.cast_signed()
    }

    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.extra == 0 && self.missing == 0
    }
}

/// Audits `namespaces`.
///
/// # Errors
/// Where the source or sock_diag can't be asked.
pub fn audit(source: &dyn Source, namespaces: &[Netns]) -> anyhow::Result<Audit> {
    let mut audit = Audit::default();
    for namespace in namespaces {
        let before = established(&source.slots()?, namespace.inode);
        if before == 0 && sockstat::is_empty(namespace).unwrap_or(false) {
            continue;
        }
        // A namespace that is gone meanwhile took its sockets with it.
        let Ok(listed) = listed(namespace) else { continue };
        let after = established(&source.slots()?, namespace.inode);
        audit.listed += listed.len() as u64;
        if before == after && before == listed.len() as i64 {
            continue;
        }
        let (extra, missing) = compare(source, namespace, &listed)?;
        audit.extra += extra;
        audit.missing += missing;
    }
    audit.at_mono_ns = crate::clock::mono_ns();
    Ok(audit)
}

/// Socket by socket, where the totals differ or move.
fn compare(
    source: &dyn Source,
    namespace: &Netns,
    listed_before: &HashSet<u64>,
) -> anyhow::Result<(u64, u64)> {
    let held_before = held(&source.connections()?, namespace.inode);
    let Ok(listed_between) = listed(namespace) else { return Ok((0, 0)) };
    let held_after = held(&source.connections()?, namespace.inode);
    let extra = held_before.intersection(&held_after).filter(|id| !listed_between.contains(id));
    let missing =
        listed_before.intersection(&listed_between).filter(|id| !held_before.contains(id));
    Ok((extra.count() as u64, missing.count() as u64))
}

fn established(slots: &[CountSlot], netns: u32) -> i64 {
    slots
        .iter()
        .filter(|slot| slot.key.netns == netns)
        .map(|slot| slot.states[state::ESTABLISHED as usize - 1])
        .sum()
}

fn held(connections: &[Observed], netns: u32) -> HashSet<u64> {
    connections
        .iter()
        .filter(|connection| connection.netns == netns && connection.state == state::ESTABLISHED)
        .map(|connection| {
            identity(connection.cookie, connection.local_port, connection.remote_port)
        })
        .collect()
}

fn listed(namespace: &Netns) -> io::Result<HashSet<u64>> {
    let mut listed = HashSet::new();
    sock_diag::each(namespace, Detail::Basic, |socket| {
        if socket.state == state::ESTABLISHED {
            listed.insert(identity(socket.cookie, socket.local_port, socket.remote_port));
        }
    })?;
    Ok(listed)
}

/// Ports instead of the cookie: on kernels before 5.12 a socket has no cookie until it is listed,
/// and what the map holds was read before that.
fn identity(cookie: u64, local_port: u16, remote_port: u16) -> u64 {
    if cookie != 0 { cookie } else { u64::from(local_port) << 16 | u64::from(remote_port) }
}
