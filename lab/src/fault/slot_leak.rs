//! A slot is taken and never given back: the table fills up while the shards have room.

use super::{Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "slot-leak",
    about: "a connection's slot is not given back at its end",
    strike: Strike::KeepSlot,
};
