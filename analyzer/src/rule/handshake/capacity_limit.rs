//! A limit at a count: refused whenever so many are there, and let in below. It is the configured
//! capacity, or a guard on something that each connection takes one of.

use super::{Case, Cause, one};
use crate::handshake::shape::Shape;
use crate::report::model::Certainty;

/// Of the capacity that a server tells: so near to it, it is the limit that was reached.
const NEAR: f64 = 0.05;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let refused = case.refused_for_now(open);
    let Some(Shape::AtCount { limit, share_percent }) = case.shape(&refused) else {
        return Vec::new();
    };
    one(refused, |claimed| {
        let at_shard =
            claimed.iter().filter(|index| case.upstream_status(**index).is_some()).count();
        let who = if at_shard > 0 { "shards" } else { "server" };
        let verb = if at_shard > 0 { "refuse" } else { "refuses" };
        // The recorded health is that of whom the clients asked.
        let told = if at_shard > 0 { None } else { case.last_health("capacity.max") };
        let near = |max: f64| (limit as f64 - max).abs() <= NEAR * max;
        let name = if told.is_none_or(near) { "capacity_limit" } else { "load_shedding" };
        let legs = case.both_legs(&claimed);
        let mut cause = Cause::new(
            name,
            format!("the {who} {verb} once about {limit} connections are upgraded"),
            claimed,
        )
        .says(format!(
            "{share_percent:.0} % were refused with about {limit} upgraded, which is the most ever"
        ));
        if let Some(legs) = legs {
            cause = cause.says(legs);
        }
        match told {
            Some(max) if near(max) => cause
                .certainty(Certainty::Certain)
                .says(format!("by its own health the server takes {max}"))
                .next_step("raise the limit, or add servers"),
            Some(max) => cause
                .says(format!("by its own health the server takes {max}, which was not reached"))
                .or(
                    "capacity_limit",
                    "the server's log of one of the examples: a guard on tasks or memory, or a limit \
                     that its health does not tell",
                )
                .next_step("find the guard and its threshold, in tasks or memory for each connection"),
            None => cause
                .or(
                    "load_shedding",
                    "the limit that is configured there: if it is another number, a guard on tasks, \
                     memory or CPU let no more in",
                )
                .next_step("is that the configured limit? raise it, or add servers"),
        }
    })
}
