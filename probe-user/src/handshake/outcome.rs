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

/// The outcome of a handshake in the words of `docs/handshakes.md`; `None` for what is no attempt.
/// `declared`: every connection to this port is an attempt (`--websocket`).
#[must_use]
pub fn outcome(observed: &Observed, declared: bool) -> Option<Cow<'static, str>> {
    if observed.flags & flag::SEEDED != 0 {
        return None; // its handshake was before the recording
    }
    if observed.established_ns == 0 {
        return Some(never_established(observed).into());
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
    let frames = observed.first_frame_in_ns != 0 || observed.first_frame_out_ns != 0;
    let ended = [observed.left_established_ns, observed.closed_ns];
    let ended = ended.into_iter().find(|&at| at != 0).unwrap_or(u64::MAX);
    if observed.http.flags & http_flag::WRONG_ACCEPT != 0 {
        "http_101_wrong_accept"
    } else if !frames && ended.saturating_sub(observed.upgraded_ns) < RIGHT_AFTER_NS {
        "closed_right_after_upgrade"
    } else {
        "upgraded"
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
    let never_accepted = observed.role == role::PASSIVE && observed.flags & flag::ACCEPTED == 0;
    if observed.seen_class == class::OTHER {
        return declared.then_some("not_http"); // the server spoke first
    }
    match (over, never_accepted) {
        (false, _) => declared.then_some("open"),
        (true, true) => Some("never_accepted"),
        (true, false) => declared.then_some("no_request"),
    }
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
    if observed.role == role::PASSIVE && observed.flags & flag::ACCEPTED == 0 {
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
