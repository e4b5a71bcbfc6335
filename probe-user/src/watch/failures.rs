//! Handshakes that failed since the last block, by outcome.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    export::json::service_port,
    handshake::outcome::{Sight, outcome},
    truth::source::Ended,
};

/// Outcomes of what did not fail, was no attempt, or was not seen.
const NO_FAILURES: [&str; 5] = ["upgraded", "plain_http", "open", "tls", "unknown"];

/// How many connections to a port ended so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub(crate) port: u16,
    pub(crate) outcome: String,
    pub(crate) count: u64,
}

/// Counts between two blocks.
#[derive(Debug)]
pub(crate) struct Failures {
    sight: Sight,
    counts: BTreeMap<(u16, String), u64>,
}

impl Failures {
    pub(crate) fn new(sight: Sight) -> Self {
        Self { sight, counts: BTreeMap::new() }
    }

    /// Takes a batch of ended connections, of which `is_watched` says whose they are.
    pub(crate) fn take(
        &mut self,
        batch: &Ended,
        is_watched: impl Fn(&probe_common::connection::Connection) -> bool,
    ) {
        for ended in batch.iter().filter(|ended| is_watched(ended)) {
            let Some(outcome) = outcome(ended, false, self.sight) else { continue };
            if !NO_FAILURES.contains(&outcome.as_ref()) {
                *self.counts.entry((service_port(ended), outcome.into_owned())).or_default() += 1;
            }
        }
    }

    /// What was counted; from now on it starts at none. The most frequent first.
    pub(crate) fn reset(&mut self) -> Vec<Failure> {
        let counted = std::mem::take(&mut self.counts).into_iter();
        let mut failures: Vec<Failure> =
            counted.map(|((port, outcome), count)| Failure { port, outcome, count }).collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        failures
    }
}

/// `568 × http_503 on 3005`, and so on.
pub(crate) fn line(failures: &[Failure]) -> String {
    let parts: Vec<String> = failures
        .iter()
        .map(|failure| format!("{} × {} on {}", failure.count, failure.outcome, failure.port))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use probe_common::state::{self, role};

    use super::*;
    use crate::{handshake::follow::Observed, truth::polled::empty_connection};

    #[test]
    fn failures_are_counted_by_port_and_outcome_and_start_anew() {
        let ended = |port, status: u16| {
            let mut connection = empty_connection();
            connection.role = role::PASSIVE;
            connection.state = state::CLOSE;
            connection.local_port = port;
            (connection.established_ns, connection.closed_ns) = (1, 9);
            (connection.request_ns, connection.response_ns) = (2, 3);
            connection.http_status = status;
            let mut observed = Observed::from(connection);
            observed.http.flags = crate::handshake::follow::flag::ASKS_FOR_WEBSOCKET;
            observed
        };
        let hooks = ["ingress", "egress"].map(|way| format!("cgroup_skb/{way}"));
        let mut failures = Failures::new(Sight::of(&hooks));
        let batch = vec![ended(3005, 503), ended(3005, 503), ended(3002, 403), ended(80, 500)];
        failures.take(&batch, |connection| connection.local_port != 80);
        assert_eq!(line(&failures.reset()), "2 × http_503 on 3005, 1 × http_403 on 3002");
        assert_eq!(failures.reset(), []);
    }
}
