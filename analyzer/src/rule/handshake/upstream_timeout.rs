//! The proxy stopped waiting for the shard: its answer comes at a fixed time after the request.

use super::{Case, Cause, one};
use crate::handshake::attempt::RESPONSE;
use crate::handshake::stage::percentile;

/// A timer fires within this share of its time; slow answers vary more.
const TIMER_SPREAD: f64 = 0.1;
/// Shorter waits are no timeouts that anybody sets.
const SHORTEST_NS: i64 = 200_000_000;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> = case
        .refused_for_now(open)
        .into_iter()
        .filter(|index| {
            let waited = case.attempt(*index).answer_ns().is_some_and(|ns| ns >= SHORTEST_NS);
            case.outcome(*index) == "upstream_timeout"
                || case.status(*index) == Some(504)
                || (waited
                    && case.upstream(*index).is_some_and(|upstream| {
                        let answered = upstream.at(RESPONSE).zip(case.attempt(*index).at(RESPONSE));
                        answered.is_none_or(|(shard, proxy)| shard > proxy)
                    }))
        })
        .collect();
    one(claimed, |claimed| {
        let mut waits: Vec<i64> =
            claimed.iter().filter_map(|index| case.attempt(*index).answer_ns()).collect();
        waits.sort_unstable();
        let at = |share| percentile(&waits, share).unwrap_or(0);
        let (early, median, late) = (at(0.05), at(0.5), at(0.95));
        let timer = (late - early) as f64 <= TIMER_SPREAD * median as f64;
        let slow = claimed
            .iter()
            .filter_map(|index| case.upstream(*index))
            .filter(|upstream| upstream.at(RESPONSE).is_some())
            .count();
        let cause = Cause::new(
            "upstream_timeout",
            format!("the proxy gave up waiting for the shard after {:.2} s", median as f64 / 1e9),
            claimed,
        )
        .says(format!(
            "90 % of the answers came between {:.2} s and {:.2} s after the request{}",
            early as f64 / 1e9,
            late as f64 / 1e9,
            if timer { ": a timer, not a load" } else { "" }
        ))
        .next_step("find why the shard is slow first; only then raise the proxy's timeout");
        if slow > 0 {
            return cause.says(format!("{slow} of the shards' answers came after the proxy's own"));
        }
        cause.says("the shard had not answered when the proxy did")
    })
}
