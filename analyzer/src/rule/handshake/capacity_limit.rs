//! A limit on the number of connections: refused whenever so many are there, and let in below.

use super::{Case, Cause, one};
use crate::handshake::shape::Shape;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let refused = case.refused_for_now(open);
    let Some(Shape::AtCount { limit, share_percent }) = case.shape(&refused) else {
        return Vec::new();
    };
    one(refused, |claimed| {
        let at_shard =
            claimed.iter().filter(|index| case.upstream_status(**index).is_some()).count();
        let whose = if at_shard > 0 { "the shards refuse" } else { "the server refuses" };
        let legs = case.both_legs(&claimed);
        let cause = Cause::new(
            "capacity_limit",
            format!("{whose} once about {limit} connections are upgraded"),
            claimed,
        )
        .says(format!(
            "{share_percent:.0} % were refused with about {limit} upgraded, which is the most ever"
        ))
        .next_step("is that the configured limit? raise it, or add servers");
        match legs {
            Some(legs) => cause.says(legs),
            None => cause,
        }
    })
}
