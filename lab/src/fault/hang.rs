//! The handler blocks for ever, and the client is the one to leave.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "hang",
    about: "an upgrade is never answered",
    strike: Strike::Request(Reaction::Hang),
};
