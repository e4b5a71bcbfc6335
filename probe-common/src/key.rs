//! What connections are counted by, and the counters.

use crate::state::STATES;

/// Populations (cgroup × namespace × port × role) that can be counted at once; 192 B each, so 3 MiB.
pub const SLOTS: u32 = 16_384;
/// Of these, kept for services of this host, and for connections to others whose port is told no more
/// ([`CountKey::OTHER_PORTS`]).
pub const SPARE_SLOTS: u32 = SLOTS / 4;

/// The population a socket is counted in. Frozen for a socket once its port is known, so a socket
/// is always taken out of the counter it was put into.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountKey {
    /// cgroup2 id (inode) of the socket's own cgroup, 0 where the kernel keeps none.
    pub cgroup_id: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The service's port in host order: local of a passive socket, remote of an active one;
    /// [`CountKey::OTHER_PORTS`].
    pub port: u16,
    /// [`crate::state::role`]
    pub role: u8,
    /// 1 once the slot's key is written; readers skip slots with 0.
    pub ready: u8,
}

impl CountKey {
    /// Where counters have run short, connections to other services are counted under this port.
    pub const OTHER_PORTS: u16 = 0;

    /// The same population; `ready` tells of the slot, not of it.
    #[must_use]
    #[inline(always)]
    pub fn is_of(&self, other: &Self) -> bool {
        // Without branches, each of which would double what the verifier has to walk.
        (self.cgroup_id == other.cgroup_id)
            & (self.netns == other.netns)
            & (self.port == other.port)
            & (self.role == other.role)
    }
}

/// One cache line pair of counters, read by userspace from mapped memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CountSlot {
    pub key: CountKey,
    /// Sockets that reached ESTABLISHED since the programs were attached (seeded ones not included).
    pub established_total: u64,
    /// Passive sockets seen accepted since the programs were attached (seeded ones not included).
    pub accepted_total: u64,
    /// Sockets in each state now, index = state − 1.
    pub states: [i64; STATES],
    /// Established sockets by what the first bytes said, index = [`crate::connection::class`].
    pub classes: [i64; 6],
    /// Sockets whose last state change to CLOSE was handed on to userspace or counted as lost.
    pub closed_total: u64,
    /// 1 once the slot was given to a population, be it for a while.
    pub used: u64,
}

const _: () = assert!(size_of::<CountKey>() == 16);
const _: () = assert!(size_of::<CountSlot>() == 192);

/// What listeners are asked by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub netns: u32,
    pub port: u16,
    pub pad: u16,
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), no padding (asserted above), every bit pattern is valid.
    unsafe impl aya::Pod for super::CountKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CountSlot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ListenerKey {}
}
