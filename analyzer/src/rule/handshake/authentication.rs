//! Turned away for who they are.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.with_status(open, |status| matches!(status, 401 | 407)), |claimed| {
        let legs = case.both_legs(&claimed);
        let cause =
            Cause::new("authentication", "turned away with 401: no or no valid token", claimed)
                .certainty(Certainty::Certain)
                .says("the answer's status says so")
                .next_step(
                    "check the token's age and audience against the server's clock and keys",
                );
        match legs {
            Some(legs) => cause.says(legs),
            None => cause,
        }
    })
}
