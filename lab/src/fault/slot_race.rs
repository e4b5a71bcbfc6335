//! Two requests look at the same free slot; the one that loses does not look again.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "slot-race",
    about: "503 without trying a shard, though there is room",
    strike: Strike::Forward(Detour::LoseSlot),
};
