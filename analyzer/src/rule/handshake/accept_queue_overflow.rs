//! The listener's queue was full: SYNs or last ACKs were dropped before the process saw anything.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let words = [
        "syn_dropped_accept_queue_full",
        "syn_dropped_syn_queue_full",
        "ack_dropped_accept_queue_full",
    ];
    one(case.having(open, &words), |claimed| {
        let mut cause =
            Cause::new("accept_queue_overflow", "the listener's queue was full", claimed)
                .certainty(Certainty::Certain)
                .says("the queue was seen full when the SYN or the last ACK came")
                .next_step(
                    "accept faster (see accepted − established), or raise the listen backlog and \
                     net.core.somaxconn",
                );
        for name in ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop"] {
            if let Some(evidence) = case.counter(name) {
                cause = cause.says(evidence);
            }
        }
        cause
    })
}
