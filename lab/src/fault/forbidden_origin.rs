//! The origin is not on the server's list.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "forbidden-origin",
    about: "an upgrade is answered 403",
    strike: Strike::Request(Reaction::Answer(403)),
};
