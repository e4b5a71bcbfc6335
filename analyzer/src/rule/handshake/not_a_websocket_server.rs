//! The backend answers as if it were an ordinary page.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.with_status(open, |status| (200..400).contains(&status)), |claimed| {
        let legs = case.both_legs(&claimed);
        let cause = Cause::new(
            "not_a_websocket_server",
            "the backend answers like an ordinary web page, and does not upgrade",
            claimed,
        )
        .certainty(Certainty::Certain)
        .says("an attempt to upgrade was answered with a status that is neither 101 nor an error")
        .next_step(
            "is this the backend and the path that is meant? is its WebSocket support switched on?",
        );
        match legs {
            Some(legs) => cause.says(legs),
            None => cause,
        }
    })
}
