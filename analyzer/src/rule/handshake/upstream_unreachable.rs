//! The proxy's SYNs to the shard got no answer: no SYN-ACK and no RST, until the proxy gave up.

use super::{Case, Cause, one};
use crate::handshake::attempt::{Attempt, ESTABLISHED};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let unanswered = |index: &usize| {
        case.upstream(*index).is_some_and(|upstream| {
            upstream.at(ESTABLISHED).is_none()
                && !upstream.portless()
                && upstream.outcome() != "no_listener"
        })
    };
    let claimed: Vec<usize> =
        case.refused_for_now(open).into_iter().filter(|index| unanswered(index)).collect();
    one(claimed, |claimed| {
        let upstream = || claimed.iter().filter_map(|index| case.upstream(*index));
        let full =
            upstream().filter(|leg| leg.outcome() == "syn_dropped_accept_queue_full").count();
        let again = upstream().filter(|leg| leg.retransmits() > 0).count();
        let waited = case.median_ms(claimed.iter().copied(), Attempt::answer_ns).unwrap_or(0.0);
        let evidence = format!(
            "{} SYNs to shards got neither SYN-ACK nor RST; {again} were sent again",
            claimed.len()
        );
        if full > 0 {
            return Cause::new(
                "accept_queue_overflow",
                "the shard's accept queue was full when the proxy connected",
                claimed,
            )
            .certainty(Certainty::Certain)
            .says(evidence)
            .says(format!("the shard's queue was seen full for {full} of them"))
            .next_step("let the shard accept faster, or raise its listen backlog");
        }
        Cause::new(
            "upstream_unreachable",
            "the shard's host did not answer the proxy's SYNs",
            claimed,
        )
        .says(evidence)
        .says(format!("the proxy answered its client after {waited:.0} ms (median)"))
        .next_step("is the shard's host up, and does a firewall or a route drop the proxy's SYNs?")
    })
}
