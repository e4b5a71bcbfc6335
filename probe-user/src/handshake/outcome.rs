//! Judges a connection's handshake: one outcome, from observed facts only.

use std::borrow::Cow;

use probe_common::{
    connection::{Connection, class, flag},
    handshake::flag as handshake_flag,
    state::role,
};

use super::follow::{Observed, flag as http_flag};

/// A connection that is closed this soon after its upgrade, before any frame, was turned away.
const RIGHT_AFTER_NS: u64 = 1_000_000_000;
/// Length of `HTTP/1.x NNN`.
const STATUS_LINE: u8 = 12;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// Which packets are looked at: those of a missing hook are unseen on every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    incoming: bool,
    outgoing: bool,
}

impl Sight {
    /// By the hooks in use, as a source names them.
    #[must_use]
    pub fn of(hooks: &[String]) -> Self {
        let has = |name: &str| hooks.iter().any(|hook| hook == name);
        Self { incoming: has("cgroup_skb/ingress"), outgoing: has("cgroup_skb/egress") }
    }

    fn is_whole(self) -> bool {
        self.incoming && self.outgoing
    }
}

/// The outcome of a handshake in the words of [`capture::outcome`]; `None` for what is no attempt.
/// `declared`: every connection to this port is an attempt (`--websocket`).
#[must_use]
pub fn outcome(observed: &Observed, declared: bool, sight: Sight) -> Option<Cow<'static, str>> {
    if observed.flags & flag::SEEDED != 0 {
        return None; // its handshake was before the recording
    }
    if observed.established_ns == 0 {
        return Some(never_established(observed).into());
    }
    if !sight.is_whole() {
        // A `101` is one whoever sees it. All else is told from what did not come: a request, an
        // answer, a frame.
        let answered = observed.upgraded_ns != 0;
        return Some(if answered && lived(observed) { "upgraded" } else { "unknown" }.into());
    }
    let attempt = declared || observed.http.flags & http_flag::ASKS_FOR_WEBSOCKET != 0;
    if attempt && client_left_before_answer(observed) {
        return Some("no_response_client_left".into());
    }
    if observed.upgraded_ns != 0 {
        return Some(upgraded(observed).into());
    }
    let status = observed.http_status;
    if status != 0 {
        return Some(if attempt { format!("http_{status}").into() } else { "plain_http".into() });
    }
    if observed.request_ns == 0 {
        return silent(observed, declared).map(Cow::Borrowed);
    }
    without_status(observed, attempt, declared).map(Cow::Borrowed)
}

/// The answer came to a client that had closed: it was taken with a RST. One that had only ended its
/// requests (a half-closed connection) takes its answer.
fn client_left_before_answer(observed: &Observed) -> bool {
    let (left, refused) = if observed.role == role::PASSIVE {
        (flag::REMOTE_FIN_FIRST, flag::RST_RECEIVED)
    } else {
        (flag::LOCAL_FIN_FIRST, flag::RST_SENT)
    };
    let left_ns = observed.left_established_ns;
    observed.flags & (left | refused) == left | refused
        && left_ns != 0
        && left_ns < observed.response_ns
}

fn upgraded(observed: &Observed) -> &'static str {
    if observed.http.flags & http_flag::WRONG_ACCEPT != 0 {
        "http_101_wrong_accept"
    } else if lived(observed) {
        "upgraded"
    } else {
        "closed_right_after_upgrade"
    }
}

/// It carried a frame after its upgrade, or stayed for a while.
fn lived(observed: &Observed) -> bool {
    let ended = [observed.left_established_ns, observed.closed_ns];
    lived_until(observed, ended.into_iter().find(|&at| at != 0).unwrap_or(u64::MAX))
}

/// Likewise of an upgraded connection up to an instant of the monotonic clock.
pub(crate) fn lived_until(observed: &Observed, at_ns: u64) -> bool {
    observed.first_frame_in_ns != 0
        || observed.first_frame_out_ns != 0
        || at_ns.saturating_sub(observed.upgraded_ns) >= RIGHT_AFTER_NS
}

/// What is known of a connection beside its outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs {
    pub(crate) established: bool,
    pub(crate) requested: bool,
    /// Its request asked for a WebSocket.
    pub(crate) asked: bool,
}

/// True for a WebSocket handshake, and for a connection that failed below HTTP.
pub(crate) fn is_attempt(word: &str, signs: Signs) -> bool {
    match word {
        "plain_http" | "tls" => false,
        // Who leaves without a word may have wanted anything.
        "never_accepted" => signs.requested,
        "open" => signs.asked,
        // Where packets are not seen, nothing says that it asked for anything.
        "unknown" => signs.asked || !signs.established,
        _ => true,
    }
}

/// The handshake of TCP itself did not end.
fn never_established(observed: &Observed) -> &'static str {
    let has = |bit: u32| observed.handshake_flags & bit != 0;
    if observed.role == role::ACTIVE {
        return match observed.error {
            ECONNREFUSED => "no_listener",
            ETIMEDOUT => "syn_ack_timeout",
            _ if observed.flags & flag::RST_RECEIVED != 0 => "no_listener",
            _ if observed.closed_ns == 0 => "open",
            // Other errors (an unreachable network, say) stand in the row.
            error if error != 0 => "unknown",
            // The connect failed before any packet.
            _ if observed.local_port == 0 => "no_ephemeral_port",
            // The client gave up waiting.
            _ => "syn_ack_timeout",
        };
    }
    if observed.sk == Connection::NO_SOCKET {
        "no_listener"
    } else if has(handshake_flag::RST_RECEIVED) {
        "reset_before_established"
    } else if has(handshake_flag::ACCEPT_QUEUE_FULL_AT_ACK) {
        "ack_dropped_accept_queue_full"
    } else if observed.syn_acks > 0 {
        if observed.closed_ns == 0 { "open" } else { "syn_ack_timeout" }
    } else if has(handshake_flag::ACCEPT_QUEUE_FULL_AT_SYN) {
        "syn_dropped_accept_queue_full"
    } else if has(handshake_flag::SYN_QUEUE_FULL) && observed.flags & flag::SYN_RETRANSMITTED != 0 {
        // A first SYN may have been answered with a SYN cookie, which no hook shows.
        "syn_dropped_syn_queue_full"
    } else if observed.closed_ns == 0 {
        "open"
    } else {
        "unknown"
    }
}

/// The client sent nothing.
fn silent(observed: &Observed, declared: bool) -> Option<&'static str> {
    let over = observed.left_established_ns != 0 || observed.closed_ns != 0;
    if observed.seen_class == class::OTHER {
        return declared.then_some("not_http"); // the server spoke first
    }
    match (over, never_accepted(observed)) {
        (false, _) => declared.then_some("open"),
        (true, true) => Some("never_accepted"),
        (true, false) => declared.then_some("no_request"),
    }
}

/// No process held it while it was there. `accept` returns what was reset in its queue all the same: no
/// descriptor was held when it closed, but one was released afterwards.
fn never_accepted(observed: &Observed) -> bool {
    let has = |bit: u32| observed.flags & bit != 0;
    let too_late = observed.released_ns != 0 && !has(flag::FD_HELD_AT_CLOSE);
    observed.role == role::PASSIVE && (!has(flag::ACCEPTED) || too_late)
}

/// The client sent something, and no status came back.
fn without_status(observed: &Observed, attempt: bool, declared: bool) -> Option<&'static str> {
    match observed.seen_class {
        class::TLS => return Some("tls"),
        class::OTHER => return declared.then_some("not_http"),
        _ => {}
    }
    // A status line that was cut off is an answer that did not come.
    let no_status_line = observed.response_ns != 0 && observed.line_length == STATUS_LINE;
    if no_status_line || observed.http.flags & http_flag::NO_HTTP_RESPONSE != 0 {
        return attempt.then_some("not_http");
    }
    let over = observed.left_established_ns != 0 || observed.closed_ns != 0;
    if !over {
        return Some("open");
    }
    if !attempt {
        return Some("plain_http");
    }
    if never_accepted(observed) {
        return Some("never_accepted");
    }
    let passive = observed.role == role::PASSIVE;
    let has = |bit: u32| observed.flags & bit != 0;
    let local = has(flag::LOCAL_FIN_FIRST)
        || (!has(flag::REMOTE_FIN_FIRST) && has(flag::RST_SENT) && !has(flag::RST_RECEIVED));
    let reset = !has(flag::LOCAL_FIN_FIRST) && !has(flag::REMOTE_FIN_FIRST);
    Some(match (local == passive, reset) {
        (true, true) => "no_response_server_reset",
        (true, false) => "no_response_server_closed",
        (false, _) => "no_response_client_left",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::truth::polled::empty_connection;

    const WHOLE: Sight = Sight { incoming: true, outgoing: true };
    const OUTGOING: Sight = Sight { incoming: false, outgoing: true };

    /// A server's end that answered `status`, or nothing, and then was left by its client.
    fn ended(status: u16) -> Observed {
        let mut connection = empty_connection();
        connection.role = role::PASSIVE;
        connection.flags = flag::ACCEPTED | flag::REMOTE_FIN_FIRST;
        connection.established_ns = 10;
        connection.request_ns = 20;
        connection.response_ns = if status == 0 { 0 } else { 30 };
        connection.upgraded_ns = if status == 101 { 30 } else { 0 };
        connection.http_status = status;
        connection.left_established_ns = 30 + 2 * RIGHT_AFTER_NS;
        connection.closed_ns = connection.left_established_ns;
        let mut observed = Observed::from(connection);
        observed.http.flags = http_flag::ASKS_FOR_WEBSOCKET;
        observed
    }

    #[test]
    fn what_only_unseen_packets_tell_is_unknown() {
        for (status, whole, partial) in [
            (0, "no_response_client_left", "unknown"),
            (403, "http_403", "unknown"),
            (101, "upgraded", "upgraded"),
        ] {
            let mut observed = ended(status);
            assert_eq!(outcome(&observed, true, WHOLE).as_deref(), Some(whole));
            // Without incoming packets no request is seen, and nothing says that it was asked for.
            observed.connection.request_ns = 0;
            observed.http.flags = 0;
            for declared in [true, false] {
                let found = outcome(&observed, declared, OUTGOING);
                assert_eq!(found.as_deref(), Some(partial), "{status}");
            }
        }
    }

    #[test]
    fn an_upgrade_that_ends_at_once_needs_the_frames_of_both_ways() {
        let mut observed = ended(101);
        observed.connection.left_established_ns = 40;
        assert_eq!(outcome(&observed, false, WHOLE).unwrap(), "closed_right_after_upgrade");
        assert_eq!(outcome(&observed, false, OUTGOING).unwrap(), "unknown");
    }

    #[test]
    fn hooks_give_sight() {
        let hooks = ["cgroup_skb/egress".to_owned()];
        assert_eq!(Sight::of(&hooks), OUTGOING);
    }

    #[test]
    fn accepted_after_its_end_is_never_accepted() {
        let mut observed = ended(0);
        observed.connection.released_ns = observed.connection.closed_ns + 1;
        assert_eq!(outcome(&observed, true, WHOLE).as_deref(), Some("never_accepted"));
        observed.connection.flags |= flag::FD_HELD_AT_CLOSE;
        assert_eq!(outcome(&observed, true, WHOLE).as_deref(), Some("no_response_client_left"));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// `analyzer schema outcomes` and the reference list what there is.
        #[test]
        fn every_outcome_is_listed(
            (role, seen_class, sk) in (role::PASSIVE..=role::ACTIVE, 0..=class::OTHER, 1_u64..3),
            times in prop::array::uniform6(prop::option::of(1_u64..4)),
            (flags, handshake_flags, http_flags) in (any::<u32>(), any::<u32>(), 0_u32..16),
            (status, line_length) in (prop::option::of(100_u16..600), 0_u8..=13),
            (error, local_port, syn_acks) in
                (prop::sample::select(vec![0, ETIMEDOUT, ECONNREFUSED, 113]), 0_u16..2, 0_u32..2),
            (declared, incoming, outgoing) in any::<(bool, bool, bool)>(),
        ) {
            let mut connection = empty_connection();
            (connection.role, connection.seen_class, connection.sk) = (role, seen_class, sk);
            (connection.flags, connection.line_length) = (flags & !flag::SEEDED, line_length);
            (connection.error, connection.local_port) = (error, local_port);
            connection.http_status = status.unwrap_or_default();
            let times = times.map(Option::unwrap_or_default);
            [
                connection.established_ns,
                connection.request_ns,
                connection.response_ns,
                connection.upgraded_ns,
                connection.left_established_ns,
                connection.closed_ns,
            ] = times;
            let mut observed = Observed::from(connection);
            observed.http.flags = http_flags;
            (observed.handshake_flags, observed.syn_acks) = (handshake_flags, syn_acks);
            let sight = Sight { incoming, outgoing };
            if let Some(word) = outcome(&observed, declared, sight) {
                prop_assert!(capture::outcome::Outcome::of(&word).is_some(), "{}", word);
            }
        }
    }
}
