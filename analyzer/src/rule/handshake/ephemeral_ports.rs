//! No ephemeral port left for the way upstream: `CLOSE → SYN_SENT → CLOSE` with source port 0, and no
//! packet is sent.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let portless = |index: &usize| {
        case.attempt(*index).portless() || case.upstream(*index).is_some_and(|leg| leg.portless())
    };
    one(open.iter().copied().filter(portless).collect(), |claimed| {
        let connects = claimed.len();
        Cause::new(
            "ephemeral_port_exhaustion",
            "no ephemeral port was left for the way upstream",
            claimed,
        )
        .certainty(Certainty::Certain)
        .says(format!("{connects} connects failed without a source port, before any packet"))
        .next_step(
            "widen net.ipv4.ip_local_port_range, reuse upstream connections, or give the proxy more \
             source or target addresses",
        )
    })
}
