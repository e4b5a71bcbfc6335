//! 403 and 404: the origin or the path is not the one that is served.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let mut causes = one(case.with_status(open, |status| matches!(status, 404 | 410)), |claimed| {
        let legs = case.both_legs(&claimed);
        let cause =
            Cause::new("wrong_path", "nothing is served at the path that was asked for", claimed)
                .certainty(Certainty::Certain)
                .says("the answer's status says so")
                .next_step(
                    "compare the client's path with the server's route and the proxy's rewriting",
                );
        match legs {
            Some(legs) => cause.says(legs),
            None => cause,
        }
    });
    causes.extend(one(case.with_status(open, |status| status == 403), |claimed| {
        let upgraded =
            claimed.iter().filter(|index| case.upstream_status(**index) == Some(101)).count();
        let linked = claimed.iter().filter(|index| case.upstream(**index).is_some()).count();
        let cause = Cause::new("forbidden", "turned away with 403", claimed).next_step(
            "compare the Origin that clients send with what is allowed, at the proxy and at the server",
        );
        if upgraded > 0 {
            return cause.says(format!(
                "the shard had upgraded {upgraded} of them: the check is in the proxy"
            ));
        }
        if linked > 0 {
            return cause.says(format!("the shard itself turned {linked} of them away"));
        }
        cause.or("authentication", "the server's log of one of the examples: origin, path or token")
    }));
    causes
}
