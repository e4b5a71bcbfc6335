//! The cleanup is not reached when reading fails: a reset connection stays in the table for ever.

use super::{Ending, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "app-leak-on-rst",
    about: "a client's RST is not cleaned up: entry and count stay",
    strike: Strike::CleanUp {
        after: &[Ending::Rst],
        change: |clean_up| {
            clean_up.remove_entry = false;
            clean_up.decrement = 0;
        },
    },
};
