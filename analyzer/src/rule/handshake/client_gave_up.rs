//! The client left before a server that is not unusually slow had answered, or without asking.

use super::{Case, Cause, one};
use crate::handshake::attempt::Attempt;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let left = case.having(open, &["no_response_client_left"]);
    let mut causes = one(left, |claimed| {
        let waited = case.median_ms(claimed.iter().copied(), Attempt::answer_ns).unwrap_or(0.0);
        Cause::new("client_gave_up", "the client left before the answer", claimed)
            .says(format!(
                "it waited {waited:.1} ms (median); usual answers take up to {:.1} ms",
                case.usual_answer_ns() as f64 / 1e6
            ))
            .next_step("look at the client's own timeout, and at what stopped it")
    });
    causes.extend(one(case.having(open, &["no_request", "reset_before_established"]), |claimed| {
        Cause::new(
            "client_sent_nothing",
            "the client connected and left without a request",
            claimed,
        )
        .says("not one byte of a request came")
        .or("a port scan or a TCP health check", "the remote addresses of the examples")
        .next_step("look at who these remote addresses are")
    }));
    causes
}
