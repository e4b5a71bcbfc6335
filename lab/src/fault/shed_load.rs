//! A guard on CPU, memory or tasks turns clients away; with a window, a cliff in time.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "shed-load",
    about: "an upgrade is answered 503, as by a guard on CPU, memory or tasks",
    strike: Strike::Request(Reaction::Answer(503)),
};
