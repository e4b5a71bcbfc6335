//! One connection as the live view needs it: from the kernel's record, or from a capture's row.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use probe_common::{
    connection::{class, flag},
    state::{self, role},
};

use serde::{Deserialize, Serialize};

use super::board::Service;
use crate::{
    export::json::address,
    handshake::{
        follow::{Observed, flag as http_flag},
        outcome::{Sight, Signs, is_attempt, outcome},
    },
};

/// What a handshake passes, in order. An attempt that was seen at one has passed those before it.
pub(crate) const STAGES: [&str; 7] = [
    "syn_received",
    "established",
    "accepted",
    "request_received",
    "response_sent",
    "upgraded",
    "first_frame",
];
const ESTABLISHED: usize = 1;
const REQUEST: usize = 3;
const UPGRADED: usize = 5;

/// What tells one connection from all others: the socket's cookie, its generation, its namespace.
pub(crate) type Key = (u64, u32, u32);

/// A connection. Times are monotonic nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) key: Key,
    #[serde(with = "shared")]
    pub(crate) service: Arc<Service>,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) state: Cow<'static, str>,
    pub(crate) class: Cow<'static, str>,
    /// `None` where nothing was judged.
    pub(crate) outcome: Option<Cow<'static, str>>,
    pub(crate) stages: [Option<i64>; STAGES.len()],
    /// When it was first seen, and when it was over.
    pub(crate) from_ns: i64,
    pub(crate) until_ns: Option<i64>,
    pub(crate) retransmits: Option<u32>,
    /// The task that accepted or connected.
    pub(crate) process: String,
    /// Its process, 0 where it is not known.
    #[serde(default)]
    pub(crate) pid: u32,
    /// The request asked for an upgrade, or a later stage says so.
    pub(crate) asked: bool,
}

/// A service in each of its connections: the same bytes as if it were not shared.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Service;

    pub(super) fn serialize<S: Serializer>(
        service: &Arc<Service>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        service.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Service>, D::Error> {
        Service::deserialize(deserializer).map(Arc::new)
    }
}

impl Leg {
    pub(crate) fn of(observed: &Observed, service: Arc<Service>, sight: Sight) -> Self {
        let time = |ns: u64| i64::try_from(ns).ok().filter(|&ns| ns != 0);
        let end = |octets, port| SocketAddr::new(address(octets), port);
        let first_frame = [observed.first_frame_in_ns, observed.first_frame_out_ns];
        let over = observed.closed_ns != 0;
        let first_seen = time(observed.first_seen_ns);
        let syn = if observed.role == role::ACTIVE {
            first_seen.filter(|_| observed.flags & flag::SEEDED == 0)
        } else {
            time(observed.syn_received_ns)
        };
        let comm = observed.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            key: (observed.cookie, observed.generation, observed.netns),
            service,
            local: end(observed.local_address, observed.local_port),
            peer: end(observed.remote_address, observed.remote_port),
            state: state::state_name(if over { state::CLOSE } else { observed.state }).into(),
            class: class::NAMES
                .get(usize::from(observed.seen_class))
                .copied()
                .unwrap_or("unknown")
                .into(),
            outcome: outcome(observed, false, sight),
            stages: [
                syn,
                time(observed.established_ns),
                time(observed.accepted_ns),
                time(observed.request_ns),
                time(observed.response_ns),
                time(observed.upgraded_ns),
                first_frame.into_iter().filter(|&ns| ns != 0).min().and_then(time),
            ],
            from_ns: first_seen.unwrap_or(0),
            until_ns: time(observed.closed_ns),
            retransmits: over.then_some(observed.retransmits),
            process: if observed.pid == 0 {
                String::new()
            } else {
                format!("{}/{}", String::from_utf8_lossy(comm), observed.pid)
            },
            pid: observed.pid,
            asked: observed.http.flags & http_flag::ASKS_FOR_WEBSOCKET != 0,
        }
    }

    /// True for a WebSocket handshake, and for a connection that failed below HTTP.
    pub(crate) fn is_attempt(&self) -> bool {
        let signs = Signs {
            established: self.stages[ESTABLISHED].is_some(),
            requested: self.stages[REQUEST].is_some(),
            asked: self.asked,
        };
        self.outcome.as_deref().is_some_and(|word| is_attempt(word, signs))
    }

    pub(crate) fn is_failure(&self) -> bool {
        self.is_attempt() && !matches!(self.outcome.as_deref(), Some("upgraded" | "open"))
    }

    /// How many stages it passed.
    pub(crate) fn passed(&self) -> usize {
        self.stages.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    /// When it was upgraded, and how long that took from the SYN (or, where that was not seen, from
    /// `established`), in microseconds.
    pub(crate) fn handshake(&self) -> Option<(i64, u64)> {
        let upgraded = self.stages[UPGRADED]?;
        let began = self.stages[0].or(self.stages[1])?;
        Some((upgraded, (upgraded - began).max(0).cast_unsigned() / 1000))
    }

    /// When it failed, as far as is known: its last stage or its end.
    pub(crate) fn last_ns(&self) -> i64 {
        self.until_ns.or_else(|| self.stages.iter().rev().copied().find_map(|at| at)).unwrap_or(0)
    }
}
