//! The server took the request and ended the connection instead of answering.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let words = ["no_response_server_closed", "no_response_server_reset"];
    one(case.having(open, &words), |claimed| {
        let resets = case.having(&claimed, &words[1..]).len();
        let closes = claimed.len() - resets;
        Cause::new("server_closed", "the server ended the connection instead of answering", claimed)
            .certainty(Certainty::Certain)
            .says(format!("{resets} were ended by RST, {closes} by FIN, after the request and without a status"))
            .next_step("look for a crash, a panic handler or an early return at these times")
    })
}
