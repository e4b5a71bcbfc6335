//! Too many in too short a time.

use super::{Case, Cause, one};
use crate::handshake::shape::Shape;
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.with_status(open, |status| status == 429), |claimed| {
        let legs = case.both_legs(&claimed);
        let shape = case.shape(&claimed);
        let mut cause =
            Cause::new("rate_limit", "turned away with 429: too many in too short a time", claimed)
                .certainty(Certainty::Certain)
                .says("the answer's status says so")
                .next_step(
                    "raise the limit, or let clients spread their connects and retry with jitter",
                );
        if let Some(Shape::Sawtooth { per_second }) = shape {
            cause =
                cause.says(format!("about {per_second} are let in each second, the rest are not"));
        }
        if let Some(legs) = legs {
            cause = cause.says(legs);
        }
        cause
    })
}
