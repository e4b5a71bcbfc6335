//! A 101 whose accept key is not the one that the request's key asks for.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.having(open, &["http_101_wrong_accept"]), |claimed| {
        let rewritten = claimed
            .iter()
            .filter(|i| case.upstream(**i).is_some_and(|u| u.at(6).is_some()))
            .count();
        let cause = Cause::new("wrong_accept_key", "answered 101 with a wrong accept key", claimed)
            .certainty(Certainty::Certain)
            .says("the answer's Sec-WebSocket-Accept does not fit the request's key")
            .next_step("look at what computes, caches or rewrites Sec-WebSocket-Accept");
        if rewritten > 0 {
            return cause.says(format!(
                "{rewritten} of them were upgraded rightly by the shard: the proxy rewrites it"
            ));
        }
        cause
    })
}
