//! The clients themselves found nobody listening.

use super::{Case, Cause, one};
use crate::report::model::Certainty;

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.having(open, &["no_listener"]), |claimed| {
        let (_, last) = case.span(&claimed);
        let ports: Vec<u32> = claimed.iter().map(|index| case.attempt(*index).port()).collect();
        let later = |index: &&usize| {
            let attempt = case.attempt(**index);
            attempt.start_ns() > last
                && ports.contains(&attempt.port())
                && case.outcome(**index) == "upgraded"
        };
        let later = case.legs.front.iter().filter(later).count();
        let evidence =
            format!("the kernel answered {} SYNs with a RST: no socket listened", claimed.len());
        if later > 0 {
            let summary = format!("the port was not bound until {}", case.time(last));
            return Cause::new("port_bound_late", summary, claimed)
                .says(evidence)
                .says(format!("{later} attempts at the same port succeeded after that"))
                .next_step(
                    "start the clients, or open the service to them, after the port is bound",
                );
        }
        Cause::new("no_listener", "nobody listens on the port", claimed)
            .certainty(Certainty::Certain)
            .says(evidence)
            .next_step("is the server running, and on the address that the clients use?")
    })
}
