//! Something else listens at the port.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "not-http",
    about: "the answer is no HTTP",
    strike: Strike::Request(Reaction::Garbage),
};
