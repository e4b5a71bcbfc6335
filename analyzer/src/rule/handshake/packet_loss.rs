//! Packets got lost on the way: those of TCP's own handshake, the request, or its answer.

use super::{Case, Cause, one};
use crate::handshake::attempt::{Attempt, REQUEST, RESPONSE, UPGRADE};

/// The soonest that TCP sends again what nobody acknowledged.
const RETRANSMISSION_NS: i64 = 200_000_000;
/// No client waits so short for an answer.
const SHORTEST_WAIT_NS: i64 = 10_000_000;

/// Which packets of an attempt did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// SYN, SYN-ACK or last ACK.
    Handshake,
    Request,
    Answer,
    /// The answer, before it left this host.
    AnswerHere,
}

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    if open.is_empty() {
        return Vec::new();
    }
    let usual = case.usual_answer_ns();
    let lost = |index: usize| lost(case.attempt(index), case.outcome(index), usual);
    let claimed = open.iter().copied().filter(|index| lost(*index).is_some()).collect();
    one(claimed, |claimed| {
        let of = |what: Lost| claimed.iter().copied().filter(move |i| lost(*i) == Some(what));
        let again = claimed.iter().filter(|index| case.attempt(**index).retransmits() > 0).count();
        let late_ms = case.median_ms(of(Lost::Request), request_late_ns);
        let [requests, answers, here] =
            [Lost::Request, Lost::Answer, Lost::AnswerHere].map(|what| of(what).count());
        let upgraded_again = case
            .legs
            .front
            .iter()
            .filter(|index| case.outcome(**index) == "upgraded")
            .filter(|index| case.attempt(**index).retransmits() > 0)
            .count();

        let mut cause =
            Cause::new("packet_loss", "the handshake's packets were lost on the way", claimed)
                .says(format!("{again} of them sent packets again"));
        if requests > 0 {
            cause = cause.says(match late_ms {
                Some(ms) => format!(
                    "{requests} requests came {ms:.0} ms (median) after their SYN, together \
                     with their clients' end"
                ),
                None => format!("{requests} requests were sent again and never answered"),
            });
        }
        if answers > 0 {
            cause = cause.says(format!("{answers} answers were sent again until the client left"));
        }
        if here > 0 {
            cause = cause.says(format!(
                "{here} answers were sent by the process, and none of their packets left this host"
            ));
        }
        cause = cause.says(format!("of {} upgraded ones {upgraded_again} did", case.upgraded()));
        for name in ["TCPTimeouts", "RetransSegs", "TCPSynRetrans"] {
            if let Some(evidence) = case.counter(name) {
                cause = cause.says(evidence);
            }
        }
        if again == 0 {
            let stalled = "clients that stall before they ask";
            cause = cause.or(stalled, "the clients' own retransmissions: `ss -ti`, `nstat` there");
        }
        cause.next_step(if here > 0 {
            "look at this host's own OUTPUT rules, conntrack, and queue drops (`tc -s qdisc`)"
        } else {
            "look at the path: firewall and conntrack drops, interface errors, MTU"
        })
    })
}

fn lost(attempt: Attempt<'_>, outcome: &str, usual_ns: i64) -> Option<Lost> {
    let again = attempt.retransmits() > 0;
    match outcome {
        "syn_ack_timeout" => Some(Lost::Handshake),
        "unknown" | "reset_before_established" => again.then_some(Lost::Handshake),
        "no_response_client_left" if !attempt.passive() => again.then_some(Lost::Request),
        "no_response_client_left" => {
            if attempt.bytes_sent() > 0 && attempt.at(RESPONSE).is_none() {
                return Some(Lost::AnswerHere);
            }
            let waited_ns = attempt.left_ns()? - attempt.at(REQUEST)?;
            let at_the_end = waited_ns <= usual_ns.max(SHORTEST_WAIT_NS);
            (request_late_ns(attempt)? >= RETRANSMISSION_NS && at_the_end).then_some(Lost::Request)
        }
        "closed_right_after_upgrade" if attempt.closed_by_remote() == Some(true) => {
            if request_late_ns(attempt)? >= RETRANSMISSION_NS {
                return Some(Lost::Request);
            }
            let waited_ns = attempt.left_ns()? - attempt.at(UPGRADE)?;
            (again && waited_ns >= RETRANSMISSION_NS).then_some(Lost::Answer)
        }
        _ => None,
    }
}

/// From the SYN to the request, on a server's end: the kernel takes both when they come, whatever the
/// process does.
fn request_late_ns(attempt: Attempt<'_>) -> Option<i64> {
    let late = attempt.at(REQUEST)? - attempt.start_ns();
    attempt.passive().then_some(late)
}
