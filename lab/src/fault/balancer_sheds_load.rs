//! A guard of the balancer turns clients away before any shard is asked.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "balancer-sheds-load",
    about: "503 without trying a shard, as by a guard",
    strike: Strike::Forward(Detour::Refuse),
};
