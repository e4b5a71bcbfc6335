//! What answers speaks HTTP, but no WebSocket.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "not-a-websocket-server",
    about: "an upgrade is answered 200 with a page",
    strike: Strike::Request(Reaction::Answer(200)),
};
