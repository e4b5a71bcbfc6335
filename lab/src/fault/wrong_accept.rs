//! A 101 that is none: its accept key fits another request.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "wrong-accept",
    about: "101 with an accept key that is not the request's",
    strike: Strike::Request(Reaction::WrongAccept),
};
