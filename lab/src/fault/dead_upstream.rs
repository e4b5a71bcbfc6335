//! A shard is in the list, but nobody listens at its port.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "dead-upstream",
    about: "connects to a port at which nobody listens: 502",
    strike: Strike::Forward(Detour::DeadUpstream),
};
