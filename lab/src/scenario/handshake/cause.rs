//! What a report must call the things that the truth names.

/// Name in the truth (a fault, or why somebody was turned away), and the analyzer's word for it.
/// What is not here makes no handshake fail.
const CAUSES: &[(&str, &str)] = &[
    ("balancer-sheds-load", "load_shedding"),
    ("capacity-limit", "capacity_limit"),
    ("close-after-request", "server_closed"),
    ("close-after-upgrade", "closed_right_after_upgrade"),
    ("dead-upstream", "upstream_refused"),
    ("drop-key-header", "proxy_headers"),
    ("drop-upgrade-header", "proxy_headers"),
    ("forbidden-origin", "forbidden"),
    ("hang", "server_hangs"),
    ("no-descriptor", "descriptor_exhaustion"),
    ("no-ephemeral-port", "ephemeral_port_exhaustion"),
    ("no-free-slot", "slots_exhausted"),
    ("not-a-websocket-server", "not_a_websocket_server"),
    ("not-http", "not_http"),
    ("rate-limit", "rate_limit"),
    ("refuse-after-upgrade", "forbidden"),
    ("reset-after-request", "server_closed"),
    ("rewrite-accept", "wrong_accept_key"),
    ("shed-load", "load_shedding"),
    ("slot-race", "slot_race"),
    ("slow-response", "client_gave_up"),
    ("task-guard", "load_shedding"),
    ("token", "authentication"),
    ("unauthorized", "authentication"),
    ("unreachable-upstream", "upstream_unreachable"),
    ("upstream-connect-timeout", "upstream_unreachable"),
    ("upstream-refused", "upstream_refused"),
    ("upstream-reset", "upstream_reset"),
    ("upstream-timeout", "upstream_timeout"),
    ("wrong-accept", "wrong_accept_key"),
    ("wrong-path", "wrong_path"),
];

/// The cause behind a name of the truth; `own` goes before the usual ones.
pub(super) fn of(name: &str, own: &[(&str, &'static str)]) -> Option<&'static str> {
    let named = |pairs: &[(&str, &'static str)]| {
        pairs.iter().find(|(known, _)| *known == name).map(|(_, cause)| *cause)
    };
    named(own).or_else(|| named(CAUSES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_may_call_it_otherwise() {
        assert_eq!(of("no-free-slot", &[]), Some("slots_exhausted"));
        assert_eq!(of("no-free-slot", &[("no-free-slot", "slot_leak")]), Some("slot_leak"));
        assert_eq!(of("never-close", &[]), None);
        assert!(CAUSES.is_sorted());
    }
}
