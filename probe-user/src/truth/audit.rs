//! Holds our counts against the kernel's own list of sockets (sock_diag).
//!
//! Neither a dump of the map nor one of the kernel is an instant, so single differences say nothing
//! under churn. A socket counts as drift only if nothing that happened meanwhile explains it: one
//! that both of two map dumps call established but the kernel's dump between them does not list, or
//! one that both of two kernel dumps list but the map dump between them lacks.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use probe_common::{key::CountSlot, state};

use super::{
    sock_diag::{self, Detail},
    sockstat,
    source::Source,
};
use crate::{
    handshake::follow::Observed,
    identity::netns::{Found, Netns},
};

/// What an audit found, over all namespaces that could be entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Sockets that the kernel lists as established.
    pub listed: u64,
    /// Counted as established, and not there.
    pub extra: u64,
    /// There, and not counted.
    pub missing: u64,
    /// Namespaces that are there and could not be looked at, and why.
    pub unlisted: Vec<String>,
    /// Sockets counted in namespaces that were not found, by namespace.
    pub beyond: HashMap<u32, i64>,
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

    /// What was left out, if anything was.
    #[must_use]
    pub fn unlisted_words(&self) -> Option<String> {
        let first = self.unlisted.first()?;
        Some(match self.unlisted.len() - 1 {
            0 => first.clone(),
            more => format!("{first}, and {more} more"),
        })
    }

    /// What is counted where neither a walk nor an audit can look.
    #[must_use]
    pub fn beyond_words(&self) -> Option<String> {
        let (namespaces, sockets) = (self.beyond.len(), self.beyond.values().sum::<i64>());
        (namespaces > 0).then(|| {
            format!(
                "{sockets} sockets are counted by their events alone: in network namespaces that no \
                 process lives in and that are mounted nowhere ({namespaces}), no walk and no audit can \
                 look"
            )
        })
    }
}

/// Audits the namespaces that `find` finds, given how many sockets are counted in each.
///
/// # Errors
/// Where the source can't be asked, or namespaces can't be looked for.
pub fn audit(
    source: &dyn Source,
    find: impl FnOnce(&HashMap<u32, i64>) -> anyhow::Result<Found>,
) -> anyhow::Result<Audit> {
    let earlier = sockets(&source.slots()?);
    let found = find(&earlier)?;
    let mut audit = Audit { unlisted: found.unopened, ..Audit::default() };
    for namespace in &found.namespaces {
        // It is held open, so it has not vanished: whatever fails is a failure.
        if let Err(error) = audit.look_at(source, namespace) {
            audit.unlisted.push(format!("network namespace {}: {error:#}", namespace.inode));
        }
    }
    audit.beyond = sockets(&source.slots()?);
    audit.beyond.retain(|netns, _| {
        let is_found = found.namespaces.iter().any(|namespace| namespace.inode == *netns);
        // One that was made since was not to be found.
        !is_found && earlier.contains_key(netns)
    });
    Ok(audit)
}

impl Audit {
    fn look_at(&mut self, source: &dyn Source, namespace: &Netns) -> anyhow::Result<()> {
        let before = established(&source.slots()?, namespace.inode);
        if before == 0 && sockstat::is_empty(namespace).unwrap_or(false) {
            return Ok(());
        }
        let listed = listed(namespace)?;
        let after = established(&source.slots()?, namespace.inode);
        if before != after || before != listed.len() as i64 {
            self.compare(source, namespace, &listed)?;
        }
        self.listed += listed.len() as u64;
        Ok(())
    }

    /// Socket by socket, where the totals differ or move.
    fn compare(
        &mut self,
        source: &dyn Source,
        namespace: &Netns,
        listed_before: &HashSet<u64>,
    ) -> anyhow::Result<()> {
        let held_before = held(&source.connections()?, namespace.inode);
        let listed_between = listed(namespace)?;
        let held_after = held(&source.connections()?, namespace.inode);
        let extra = held_before.intersection(&held_after).filter(|id| !listed_between.contains(id));
        let missing =
            listed_before.intersection(&listed_between).filter(|id| !held_before.contains(id));
        self.extra += extra.count() as u64;
        self.missing += missing.count() as u64;
        Ok(())
    }
}

/// Sockets that are counted and that a walk should meet, by namespace; one in `close` is in no table.
pub(super) fn sockets(slots: &[CountSlot]) -> HashMap<u32, i64> {
    let mut sockets = HashMap::new();
    for slot in slots {
        let states = (1..).zip(slot.states).filter(|(state, _)| *state != state::CLOSE);
        *sockets.entry(slot.key.netns).or_default() += states.map(|(_, count)| count).sum::<i64>();
    }
    sockets.retain(|_, count| *count != 0);
    sockets
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

fn listed(namespace: &Netns) -> anyhow::Result<HashSet<u64>> {
    let mut listed = HashSet::new();
    sock_diag::each(namespace, Detail::Basic, |socket| {
        if socket.state == state::ESTABLISHED {
            listed.insert(identity(socket.cookie, socket.local_port, socket.remote_port));
        }
    })
    .context("cannot list its sockets")?;
    Ok(listed)
}

/// Ports instead of the cookie: on kernels before 5.12 a socket has no cookie until it is listed,
/// and what the map holds was read before that.
fn identity(cookie: u64, local_port: u16, remote_port: u16) -> u64 {
    if cookie != 0 { cookie } else { u64::from(local_port) << 16 | u64::from(remote_port) }
}
