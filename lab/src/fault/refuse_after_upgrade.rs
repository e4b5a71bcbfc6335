//! The proxy checks the origin too late: the shard has upgraded already.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "refuse-after-upgrade",
    about: "the shard upgrades, then the client gets 403",
    strike: Strike::Forward(Detour::RefuseAfterUpgrade(403)),
};
