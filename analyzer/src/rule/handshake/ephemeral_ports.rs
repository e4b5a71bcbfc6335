//! No ephemeral port left for the way upstream: the connect fails before any packet.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    let table = &case.recording.connections;
    let (Ok(errors), Ok(roles), Ok(ports)) =
        (table.column("error"), table.column("role"), table.column("local_port"))
    else {
        return Vec::new();
    };
    let (Ok(errors), Ok(roles), Ok(ports)) = (errors.str(), roles.str(), ports.u32()) else {
        return Vec::new();
    };
    // `CLOSE → SYN_SENT → CLOSE` with source port 0: no port was found, and no packet was sent.
    let portless = roles
        .iter()
        .zip(ports.iter())
        .zip(errors.iter())
        .filter(|((role, port), error)| {
            *role == Some("active") && (*port == Some(0) || *error == Some("EADDRNOTAVAIL"))
        })
        .count();
    if portless == 0 {
        return Vec::new();
    }
    let claimed: Vec<usize> = case
        .refused_for_now(open)
        .into_iter()
        .filter(|i| case.never_tried(*i))
        .take(portless)
        .collect();
    one(claimed, |claimed| {
        Cause::new("ephemeral_port_exhaustion", "no ephemeral port was left for the way upstream", claimed)
            .certainty(Certainty::Certain)
            .says(format!("{portless} connects failed before a packet was sent, without a source port"))
            .next_step(
                "widen net.ipv4.ip_local_port_range, reuse upstream connections, or give the proxy more \
                 source or target addresses",
            )
    })
}
