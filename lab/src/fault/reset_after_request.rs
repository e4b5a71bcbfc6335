//! The server dies on the request, and the kernel resets the connection.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "reset-after-request",
    about: "the request is read, then the connection is reset",
    strike: Strike::Request(Reaction::Reset),
};
