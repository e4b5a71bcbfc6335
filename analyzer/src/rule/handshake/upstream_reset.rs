//! The shard took the request and then reset or closed the connection without an answer.

use super::{Case, Cause, one};
use crate::handshake::attempt::{ESTABLISHED, RESPONSE};

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> = open
        .iter()
        .copied()
        .filter(|index| {
            case.outcome(*index) == "upstream_reset"
                || case.upstream(*index).is_some_and(|upstream| {
                    let by_shard = upstream.closed_by_remote() == Some(!upstream.passive());
                    case.status(*index).is_some_and(|status| status >= 500)
                        && upstream.at(ESTABLISHED).is_some()
                        && upstream.at(RESPONSE).is_none()
                        && by_shard
                })
        })
        .collect();
    one(claimed, |claimed| {
        let resets = claimed
            .iter()
            .filter_map(|index| case.upstream(*index))
            .filter(|upstream| upstream.outcome().ends_with("_reset"))
            .count();
        let closes = claimed.len() - resets;
        Cause::new("upstream_reset", "the shard ended the connection instead of answering", claimed)
            .says(format!("the shard ended its leg {resets} times by RST, {closes} times by FIN, without a status"))
            .next_step("look for a crash, a panic handler or a limit in the shard at these times")
    })
}
