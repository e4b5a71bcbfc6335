//! The proxy rewrites headers and loses the key.

use super::{Detour, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "drop-key-header",
    about: "forwards without Sec-WebSocket-Key: the shard says 400",
    strike: Strike::Forward(Detour::DropHeader("sec-websocket-key")),
};
