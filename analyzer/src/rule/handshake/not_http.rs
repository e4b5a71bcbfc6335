//! The port does not speak HTTP, or speaks TLS to a client that does not (or the other way round).

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.having(open, &["not_http"]), |claimed| {
        Cause::new("not_http", "what was said on the connection is not HTTP", claimed)
            .certainty(Certainty::Certain)
            .says("the first bytes are no HTTP; class `tls` in the rows means a TLS record")
            .next_step("compare ws:// and wss:// in the client's URL with what the port speaks")
    })
}
