//! The server gives up on the request without a word.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "close-after-request",
    about: "the request is read, then the connection is closed",
    strike: Strike::Request(Reaction::Close),
};
