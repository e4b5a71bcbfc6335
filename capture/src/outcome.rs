//! The words of the column `outcome`: how a handshake ended, and what is seen when it did.

/// One way in which a handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// As in the column; `<status>` stands for a number.
    pub name: &'static str,
    /// Whether an attempt that ends so has failed.
    pub kind: Kind,
    /// What has to be seen for it.
    pub evidence: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Failure,
    Success,
    /// Neither failed nor done.
    Waiting,
    /// Not an attempt, as far as is known.
    NoAttempt,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Success => "success",
            Self::Waiting => "waiting",
            Self::NoAttempt => "no attempt",
        }
    }
}

/// The status of an answer stands in the word.
const STATUS: &str = "<status>";

impl Outcome {
    /// All there are, in the order of a handshake's stages.
    pub const ALL: [Self; 21] = [
        failure(
            "no_listener",
            "a SYN was answered by RST, with no socket; an active leg: ECONNREFUSED",
        ),
        failure("no_ephemeral_port", "an active leg ended before any packet: no port was free"),
        failure(
            "syn_dropped_accept_queue_full",
            "no SYN-ACK; the listener's backlog was over its limit when the SYN came",
        ),
        failure(
            "syn_dropped_syn_queue_full",
            "no SYN-ACK; as many SYNs waited as the listener takes",
        ),
        failure("syn_ack_timeout", "SYN-ACKs went out, and nothing came back for 70 s"),
        failure("reset_before_established", "the client's RST came before its last ACK"),
        failure(
            "ack_dropped_accept_queue_full",
            "the last ACK came, the accept queue was full, and no child was made",
        ),
        failure("never_accepted", "established, and over before any process held it"),
        failure("no_request", "accepted, over, and no byte from the client (declared ports only)"),
        failure("no_response_client_left", "a request, no response, and the client ended it"),
        failure("no_response_server_closed", "a request, no response, and the server's FIN"),
        failure("no_response_server_reset", "a request, no response, and the server's RST"),
        failure("http_<status>", "the first response's status; `http_reason` keeps its phrase"),
        failure(
            "http_101_wrong_accept",
            "101, and the accept key is not the one that answers the request's key",
        ),
        failure("not_http", "the first bytes are neither request nor response"),
        Self {
            name: "tls",
            kind: Kind::NoAttempt,
            evidence: "the first bytes are a TLS ClientHello: what is asked inside is not known",
        },
        failure("closed_right_after_upgrade", "101, and closed within 1 s before any frame"),
        Self {
            name: "upgraded",
            kind: Kind::Success,
            evidence: "101, with the right key where both were seen",
        },
        Self {
            name: "open",
            kind: Kind::Waiting,
            evidence: "still on its way when the recording ended",
        },
        Self {
            name: "plain_http",
            kind: Kind::NoAttempt,
            evidence: "a request that did not ask for a WebSocket: a health poll, a browser",
        },
        failure("unknown", "none of these is supported by what was seen"),
    ];

    /// The one that a word of the column is.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        let is = |outcome: &Self| match outcome.name.strip_suffix(STATUS) {
            None => word == outcome.name,
            Some(prefix) => word.strip_prefix(prefix).is_some_and(|status| {
                status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit())
            }),
        };
        Self::ALL.into_iter().find(is)
    }
}

const fn failure(name: &'static str, evidence: &'static str) -> Outcome {
    Outcome { name, kind: Kind::Failure, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_outcome() {
        for outcome in Outcome::ALL {
            let word = outcome.name.replace(STATUS, "503");
            assert_eq!(Outcome::of(&word), Some(outcome));
        }
        for word in ["http_", "http_50", "http_+50", "http_5030", "http_<status>", "Upgraded"] {
            assert_eq!(Outcome::of(word), None, "{word}");
        }
    }
}
