//! Packets got lost on the way: the handshake's own packets had to be sent again.

use super::{Case, Cause, one};

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let claimed: Vec<usize> = open
        .iter()
        .copied()
        .filter(|index| {
            case.outcome(*index) == "syn_ack_timeout"
                || (case.attempt(*index).retransmits() > 0
                    && matches!(case.outcome(*index), "unknown" | "reset_before_established"))
        })
        .collect();
    one(claimed, |claimed| {
        let again = claimed.iter().filter(|index| case.attempt(**index).retransmits() > 0).count();
        let healthy = case.upgraded();
        let healthy_again = case
            .legs
            .front
            .iter()
            .filter(|index| case.outcome(**index) == "upgraded")
            .filter(|index| case.attempt(**index).retransmits() > 0)
            .count();
        let mut cause =
            Cause::new("packet_loss", "the handshake's packets were lost on the way", claimed)
                .says(format!("{again} of them sent packets again"))
                .says(format!("of {healthy} upgraded ones {healthy_again} did"))
                .next_step("look at the path: firewall and conntrack drops, interface errors, MTU");
        for name in ["TCPTimeouts", "RetransSegs", "TCPSynRetrans"] {
            if let Some(evidence) = case.counter(name) {
                cause = cause.says(evidence);
            }
        }
        cause
    })
}
