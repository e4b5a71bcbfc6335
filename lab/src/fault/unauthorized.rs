//! The client brings no token, or a wrong one.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "unauthorized",
    about: "an upgrade is answered 401",
    strike: Strike::Request(Reaction::Answer(401)),
};
