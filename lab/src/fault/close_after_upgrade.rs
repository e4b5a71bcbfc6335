//! The handler fails right after the upgrade.

use super::{Fault, Reaction, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "close-after-upgrade",
    about: "101, and then the connection is closed at once",
    strike: Strike::Request(Reaction::CloseAfterUpgrade),
};
