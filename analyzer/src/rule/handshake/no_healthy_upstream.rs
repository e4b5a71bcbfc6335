//! Nobody is let in at all, and no shard is asked: the proxy holds none of its shards to be healthy.

use std::collections::BTreeSet;

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;
use crate::report::model::Certainty;

/// By the proxy's own page, as Envoy names it.
const HEALTHY: [&str; 2] = [".membership_healthy", "envoy_cluster_membership_healthy"];

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let service = |index: usize| (case.attempt(index).cgroup_id(), case.attempt(index).port());
    let refused = case.refused_for_now(open);
    let here: BTreeSet<_> = refused.iter().map(|index| service(*index)).collect();
    let not_refused: BTreeSet<_> = case
        .legs
        .front
        .iter()
        .copied()
        .filter(|index| here.contains(&service(*index)) && refused.binary_search(index).is_err())
        .map(service)
        .collect();
    let claimed = refused
        .iter()
        .copied()
        .filter(|index| !not_refused.contains(&service(*index)) && case.upstream(*index).is_none())
        .collect();
    one(claimed, |claimed| {
        let quick = case.median_ms(claimed.iter().copied(), Attempt::answer_ns).unwrap_or(0.0);
        let evidence = format!(
            "all {} were refused without a SYN to any shard, half of them within {quick:.1} ms",
            claimed.len()
        );
        let summary = "nobody is let in at all, as by a proxy that has no healthy shard";
        let cause = Cause::new("no_healthy_upstream", summary, claimed).says(evidence);
        let step =
            "ask the proxy which shards it holds to be healthy (Envoy: /clusters), and why not";
        let cause = cause.next_step(step);
        match HEALTHY.iter().find_map(|end| case.most_by_metric(end)) {
            Some(most) if most < 1.0 => cause
                .certainty(Certainty::Certain)
                .says("by its own page none of its shards was healthy"),
            _ => cause.or(
                "load_shedding",
                "whether this is a proxy, and what it says of its shards' health; a server's guard \
                 says so in its log",
            ),
        }
    })
}
