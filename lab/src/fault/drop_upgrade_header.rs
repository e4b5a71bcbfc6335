//! The proxy treats `Upgrade` as a hop-by-hop header and does not pass it on.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "drop-upgrade-header",
    about: "forwards without Upgrade: the shard says 426",
    strike: Strike::Forward(Detour::DropHeader("upgrade")),
};
