//! The upgrade headers did not arrive: 400 or 426, usually since a proxy drops or rewrites them.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let headers = |status: u32| matches!(status, 400 | 405 | 426 | 501);
    let claimed: Vec<usize> = open
        .iter()
        .copied()
        .filter(|index| {
            case.status(*index).is_some_and(headers)
                || case.upstream_status(*index).is_some_and(headers)
                || case.upstream(*index).is_some_and(|leg| !leg.asks())
        })
        .collect();
    one(claimed, |claimed| {
        let behind = claimed
            .iter()
            .filter(|index| case.upstream_status(**index).is_some_and(headers))
            .count();
        let stripped =
            claimed.iter().filter(|i| case.upstream(**i).is_some_and(|leg| !leg.asks())).count();
        let cause = Cause::new(
            "proxy_headers",
            "the request that arrived was no valid upgrade",
            claimed,
        )
        .next_step(
            "let the proxy pass on HTTP/1.1, Connection, Upgrade and the Sec-WebSocket-* headers \
             unchanged (nginx: proxy_http_version, proxy_set_header)",
        );
        if stripped > 0 {
            return cause.certainty(Certainty::Certain).says(format!(
                "{stripped} clients asked for an upgrade, and the proxy passed on requests that did not"
            ));
        }
        if behind > 0 {
            return cause.says(format!(
                "the shard refused {behind} of them by a status that is about the request's form"
            ));
        }
        cause
            .says("the answer's status is about the request's form")
            .or("a client that sends no valid upgrade", "the same client directly at the server")
    })
}
