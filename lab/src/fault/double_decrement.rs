//! Two code paths clean up the same connection: the counter falls twice, below zero in the end.

use super::{Ending, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "double-decrement",
    about: "an ended connection leaves the count twice, down to negative reports",
    strike: Strike::CleanUp {
        after: &[Ending::CloseFrame, Ending::Fin, Ending::Rst, Ending::Timeout],
        change: |clean_up| clean_up.decrement = 2,
    },
};
