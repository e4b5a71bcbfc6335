//! How a handshake ended, in the words of the design. The recorder's own word stands; where it left
//! none, the row's facts are enough for most.

/// Not failures: upgraded, still waiting, and requests that never asked for an upgrade.
pub(crate) const UPGRADED: &str = "upgraded";
pub(crate) const OPEN: &str = "open";
pub(crate) const PLAIN_HTTP: &str = "plain_http";

/// A failure that the probe's own polls of a dead server meet as well.
pub(crate) const NO_LISTENER: &str = "no_listener";

pub(crate) fn is_failure(outcome: &str) -> bool {
    !matches!(outcome, UPGRADED | OPEN | PLAIN_HTTP)
}

/// A close so soon after the upgrade, before any frame, is a failed handshake in all but name.
const RIGHT_AFTER_NS: i64 = 1_000_000_000;

/// What a row says of its handshake. Times are monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) passive: bool,
    pub(crate) class: &'a str,
    pub(crate) established: Option<i64>,
    pub(crate) accepted: Option<i64>,
    pub(crate) request: Option<i64>,
    pub(crate) response: Option<i64>,
    pub(crate) upgraded: Option<i64>,
    pub(crate) first_frame: Option<i64>,
    pub(crate) closed: Option<i64>,
    pub(crate) status: Option<u32>,
    pub(crate) closed_by: &'a str,
    pub(crate) closed_how: &'a str,
    pub(crate) error: &'a str,
}

/// The outcome of an attempt that the recorder did not name.
pub(crate) fn of(facts: &Facts<'_>) -> std::borrow::Cow<'static, str> {
    if let Some(upgraded) = facts.upgraded {
        let at_once = facts.closed.is_some_and(|closed| closed - upgraded <= RIGHT_AFTER_NS);
        let word = if at_once && facts.first_frame.is_none() {
            "closed_right_after_upgrade"
        } else {
            UPGRADED
        };
        return word.into();
    }
    match facts.status {
        // Told apart from `upgraded` by the accept key alone.
        Some(101) => return "http_101_wrong_accept".into(),
        Some(status) => return format!("http_{status}").into(),
        None => {}
    }
    if facts.response.is_some() || matches!(facts.class, "tls" | "other") {
        return "not_http".into();
    }
    let Some(_) = facts.closed else { return OPEN.into() };
    if facts.established.is_none() {
        let word = match (facts.closed_how, facts.error) {
            (_, "ECONNREFUSED") => NO_LISTENER,
            ("timeout", _) | (_, "ETIMEDOUT") => "syn_ack_timeout",
            ("rst", _) => "reset_before_established",
            _ => "unknown",
        };
        return word.into();
    }
    if facts.request.is_none() {
        let never = facts.passive && facts.accepted.is_none();
        return if never { "never_accepted" } else { "no_request" }.into();
    }
    // `local` is the server's end on a passive leg, and the client's on an active one.
    let word = match (facts.closed_by, facts.closed_how, facts.passive) {
        ("remote", _, true) | ("local", _, false) => "no_response_client_left",
        ("local", "rst", true) | ("remote", "rst", false) => "no_response_server_reset",
        ("local", _, true) | ("remote", _, false) => "no_response_server_closed",
        _ => "unknown",
    };
    word.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_follow_from_facts() {
        let base = Facts {
            passive: true,
            class: "http",
            established: Some(1),
            accepted: Some(2),
            request: Some(3),
            closed: Some(9),
            closed_by: "remote",
            closed_how: "fin",
            ..Facts::default()
        };
        let answered = Facts { response: Some(4), status: Some(503), ..base };
        let upgraded = Facts { response: Some(4), status: Some(101), upgraded: Some(4), ..base };
        let cases = [
            (answered, "http_503"),
            (Facts { upgraded: None, ..upgraded }, "http_101_wrong_accept"),
            (upgraded, "closed_right_after_upgrade"),
            (Facts { first_frame: Some(5), ..upgraded }, "upgraded"),
            (Facts { closed: None, ..upgraded }, "upgraded"),
            (base, "no_response_client_left"),
            (Facts { closed_by: "local", ..base }, "no_response_server_closed"),
            (Facts { closed_by: "local", closed_how: "rst", ..base }, "no_response_server_reset"),
            (Facts { passive: false, ..base }, "no_response_server_closed"),
            (Facts { closed: None, ..base }, "open"),
            (Facts { request: None, ..base }, "no_request"),
            (Facts { request: None, accepted: None, ..base }, "never_accepted"),
            (Facts { class: "tls", ..base }, "not_http"),
            (Facts { response: Some(4), ..base }, "not_http"),
            (Facts { established: None, closed_how: "timeout", ..base }, "syn_ack_timeout"),
            (Facts { established: None, closed_how: "rst", ..base }, "reset_before_established"),
            (Facts { established: None, error: "ECONNREFUSED", ..base }, "no_listener"),
        ];
        for (facts, expected) in cases {
            assert_eq!(of(&facts), expected, "{facts:?}");
        }
    }
}
