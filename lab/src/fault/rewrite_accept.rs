//! The proxy answers with a key of its own, which fits no request.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "rewrite-accept",
    about: "passes the 101 on with another accept key",
    strike: Strike::Forward(Detour::RewriteAccept),
};
