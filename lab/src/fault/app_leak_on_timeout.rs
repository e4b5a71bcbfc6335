//! The server closes a client that stopped answering, and forgets the table (needs --ping-interval).

use super::{Ending, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "app-leak-on-timeout",
    about: "a client closed for silence is not cleaned up (needs --ping-interval)",
    strike: Strike::CleanUp {
        after: &[Ending::Timeout],
        change: |clean_up| {
            clean_up.remove_entry = false;
            clean_up.decrement = 0;
        },
    },
};
