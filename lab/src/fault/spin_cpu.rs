//! The handler computes on the thread that accepts and answers: every stage stretches.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "spin-cpu",
    about: "each request burns --fault-delay of CPU on a thread that serves others",
    strike: Strike::Request(Reaction::Spin),
};
