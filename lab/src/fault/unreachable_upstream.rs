//! The balancer's SYNs get no answer, as from a host that is down or behind a firewall: it waits for the
//! connection until its own timeout.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "unreachable-upstream",
    about: "the way to the shard swallows SYNs; 504 after --upstream-timeout",
    strike: Strike::Forward(Detour::UnreachableUpstream),
};
