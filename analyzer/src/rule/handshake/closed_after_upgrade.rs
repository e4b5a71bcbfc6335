//! Upgraded, and closed within a second and before any frame.

use super::{Case, Cause, one};

pub(super) fn judge(case: &Case<'_>, open: &[usize]) -> Vec<Cause> {
    one(case.having(open, &["closed_right_after_upgrade"]), |claimed| {
        let by_client =
            claimed.iter().filter(|i| case.attempt(**i).closed_by_remote() == Some(true)).count();
        let by_server = claimed.len() - by_client;
        Cause::new(
            "closed_right_after_upgrade",
            "upgraded, and closed at once without a frame",
            claimed,
        )
        .says(format!("{by_server} were closed by the server's end, {by_client} by the client's"))
        .next_step("look at what the server checks after the upgrade: session, origin, user limit")
    })
}
