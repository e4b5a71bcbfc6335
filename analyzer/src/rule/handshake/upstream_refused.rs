//! Nobody listens where the proxy connects to: for good, or until the shard has bound its port.

use super::{Case, Cause, one};
use crate::handshake::attempt::ESTABLISHED;
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> = open
        .iter()
        .copied()
        .filter(|index| {
            case.outcome(*index) == "upstream_refused"
                || case.upstream(*index).is_some_and(|upstream| {
                    upstream.at(ESTABLISHED).is_none() && upstream.outcome() == "no_listener"
                })
        })
        .collect();
    one(claimed, |claimed| {
        let (_, last) = case.span(&claimed);
        let later = later_upgrades(case, &claimed, last);
        let evidence = format!("the shard's host answered {} SYNs with a RST", claimed.len());
        if later > 0 {
            let until = case.time(last);
            return Cause::new(
                "port_bound_late",
                format!("the shard did not listen until {until}"),
                claimed,
            )
            .says(evidence)
            .says(format!("{later} attempts at the same port succeeded after that"))
            .next_step("let the proxy wait for the shard's health check before it sends clients");
        }
        Cause::new("upstream_refused", "nobody listens on the shard's port", claimed)
            .certainty(Certainty::Certain)
            .says(evidence)
            .next_step("is the shard running, and is its port the one that the proxy has?")
    })
}

/// Upgrades by way of the same upstream ports after the last refusal.
fn later_upgrades(case: &Case<'_>, refused: &[usize], last_ns: i64) -> usize {
    let ports: std::collections::BTreeSet<u32> =
        refused.iter().filter_map(|index| Some(case.upstream(*index)?.port())).collect();
    let later = |index: &&usize| {
        let attempt = case.attempt(**index);
        attempt.start_ns() > last_ns
            && case.outcome(**index) == "upgraded"
            && case.upstream(**index).is_some_and(|upstream| ports.contains(&upstream.port()))
    };
    case.legs.front.iter().filter(later).count()
}
