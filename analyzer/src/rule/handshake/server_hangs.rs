//! The request was taken and never answered; the client left after waiting long.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

/// So much longer than a usual answer, a client did not leave too early.
const PATIENT: i64 = 10;
/// Nobody waits shorter and calls it patience.
const SHORTEST_NS: i64 = 1_000_000_000;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let usual = case.usual_answer_ns();
    let patient = |index: &usize| {
        case.attempt(*index).answer_ns().is_some_and(|ns| ns >= (usual * PATIENT).max(SHORTEST_NS))
    };
    let claimed: Vec<usize> =
        case.having(open, &["no_response_client_left"]).into_iter().filter(patient).collect();
    one(claimed, |claimed| {
        let waited = case.median_ms(claimed.iter().copied(), Attempt::answer_ns).unwrap_or(0.0);
        let linked = claimed.iter().filter(|index| case.upstream(**index).is_some()).count();
        let cause = Cause::new(
            "server_hangs",
            "the server took the request and never answered",
            claimed,
        )
        .says(format!(
            "clients left after {:.1} s (median); usual answers take up to {:.1} ms",
            waited / 1e3,
            usual as f64 / 1e6
        ))
        .next_step(
            "look for a deadlock, or a lookup without a timeout, in the handshake's handler",
        );
        if linked > 0 {
            return cause.says(format!(
                "{linked} of the requests were passed on to a shard, which did not answer"
            ));
        }
        cause
    })
}
