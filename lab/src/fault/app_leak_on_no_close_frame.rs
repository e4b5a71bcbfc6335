//! The cleanup hangs on the close frame: a client that just closes its socket stays in the table.

use super::{Ending, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "app-leak-on-no-close-frame",
    about: "a FIN without close frame is not cleaned up: entry and count stay",
    strike: Strike::CleanUp {
        after: &[Ending::Fin],
        change: |clean_up| {
            clean_up.remove_entry = false;
            clean_up.decrement = 0;
        },
    },
};
