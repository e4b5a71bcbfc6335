//! The handler waits for something slow before it answers.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "slow-response",
    about: "an upgrade is answered --fault-delay later",
    strike: Strike::Request(Reaction::Delay),
};
