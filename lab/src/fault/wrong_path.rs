//! The path leads to no WebSocket endpoint.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "wrong-path",
    about: "an upgrade is answered 404",
    strike: Strike::Request(Reaction::Answer(404)),
};
