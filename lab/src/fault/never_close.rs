//! The server never closes its end: after a FIN the socket stays in `close_wait`, after an RST the
//! process keeps a descriptor on a closed socket. Its table keeps the entry as well.

use super::{Ending, Fault, Strike};

pub(super) const FAULT: Fault = Fault {
    name: "never-close",
    about: "the descriptor is kept after FIN or RST; entry and count stay",
    strike: Strike::CleanUp {
        after: &[Ending::Fin, Ending::Rst],
        change: |clean_up| {
            clean_up.remove_entry = false;
            clean_up.decrement = 0;
            clean_up.close = false;
        },
    },
};
