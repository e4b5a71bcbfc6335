//! A connection is served but never registered.

use super::{Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "reverse-phantom",
    about: "a WebSocket is served, but neither entered in the table nor counted",
    strike: Strike::Admission(|admission| admission.register = false),
};
