//! Attempts: the rows that asked for an upgrade, or went to a port where every connection does.

use std::collections::HashMap;

use polars::prelude::{
    BooleanChunked, DataFrame, Int64Chunked, StringChunked, UInt32Chunked, UInt64Chunked,
};

use crate::handshake::outcome::{self, Facts, PLAIN_HTTP, UPGRADED};
use crate::input::recording::Recording;

/// One leg's handshake. Times are monotonic nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Row of `connections`.
    pub(crate) row: u32,
    pub(crate) cgroup_id: u64,
    pub(crate) port: u32,
    pub(crate) passive: bool,
    pub(crate) start_ns: i64,
    /// Time of each of [`crate::handshake::stage::STAGES`], in their order.
    pub(crate) stages: [Option<i64>; STAGE_COUNT],
    accept_noticed_ns: Option<i64>,
    left_established_ns: Option<i64>,
    pub(crate) closed_ns: Option<i64>,
    pub(crate) status: Option<u32>,
    pub(crate) retransmits: u32,
    pub(crate) closed_by_remote: Option<bool>,
    pub(crate) leg_id: Option<u64>,
    /// A connect that found no source port.
    pub(crate) portless: bool,
    /// Whether it asked for an upgrade. A plain request may be what a proxy made of one that did.
    pub(crate) asks: bool,
    /// Whether the figures are about it.
    pub(crate) counted: bool,
    /// Index into [`Attempts::outcomes`].
    outcome: usize,
}

/// Times taken in the handling of one event lie closer together than this.
const SAME_EVENT_NS: i64 = 100_000;

pub(crate) const STAGE_COUNT: usize = 8;
pub(crate) const ESTABLISHED: usize = 2;
pub(crate) const ACCEPTED: usize = 3;
pub(crate) const REQUEST: usize = 4;
pub(crate) const RESPONSE: usize = 5;
pub(crate) const UPGRADE: usize = 6;

impl Attempt {
    pub(crate) fn at(&self, stage: usize) -> Option<i64> {
        self.stages[stage]
    }

    /// When it stopped being established.
    pub(crate) fn left_ns(&self) -> Option<i64> {
        self.left_established_ns.or(self.closed_ns)
    }

    /// From the request's first byte to the answer's, or to the end where there was none.
    pub(crate) fn answer_ns(&self) -> Option<i64> {
        // A client that has left waits no longer, even where the server keeps its end open.
        let until = self.at(RESPONSE).or_else(|| self.left_ns())?;
        Some(until - self.at(REQUEST)?)
    }

    /// How long it waited for the process, from the kernel's `established`; at least so long where
    /// the accept was noticed late, `None` where nothing tells.
    pub(crate) fn accept_wait_ns(&self) -> Option<i64> {
        let established = self.at(ESTABLISHED)?;
        let until = match (self.at(ACCEPTED), self.accept_noticed_ns) {
            (Some(accepted), _) => accepted,
            // Every change of state looks whether the socket was accepted: it was not when the
            // connection left `established`, if that was noticed only later.
            (None, Some(noticed)) => {
                self.left_established_ns.filter(|left| left + SAME_EVENT_NS < noticed)?
            }
            (None, None) => self.left_ns()?,
        };
        Some(until - established)
    }
}

/// Every attempt of a recording, in the order of the table.
#[derive(Debug)]
pub(crate) struct Attempts {
    pub(crate) all: Vec<Attempt>,
    outcomes: Vec<String>,
    /// Requests that asked for no upgrade.
    pub(crate) plain_http: usize,
    /// Rows of which neither outcome nor request is known: no handshake can be told from them.
    pub(crate) untold: usize,
}

impl Attempts {
    /// `counted` says which rows the figures are about; the rest may be upstream legs of theirs.
    pub(crate) fn new(recording: &Recording, counted: &BooleanChunked) -> anyhow::Result<Self> {
        let table = &recording.connections;
        let columns = Columns::new(table)?;
        let websocket_ports = &recording.meta.selection.websocket_ports;
        let mut attempts =
            Attempts { all: Vec::new(), outcomes: Vec::new(), plain_http: 0, untold: 0 };
        let mut known: HashMap<String, usize> = HashMap::new();
        for (row, counted) in counted.iter().enumerate() {
            let counted = counted == Some(true);
            let facts = columns.facts(row);
            let port = columns.port.get(row).unwrap_or(0);
            let word: std::borrow::Cow<'_, str> = match columns.outcome.get(row) {
                Some(word) => word.into(),
                None if websocket_ports.iter().any(|p| u32::from(*p) == port)
                    || facts.upgraded.is_some()
                    || facts.class == UPGRADED =>
                {
                    outcome::of(&facts)
                }
                None if facts.class == "http" => PLAIN_HTTP.into(),
                None => {
                    attempts.untold += usize::from(counted);
                    continue;
                }
            };
            // What is encrypted may be an upgrade, and may not.
            if word == "tls" {
                attempts.untold += usize::from(counted);
                continue;
            }
            // A 101 that comes after its client has gone was no answer to it.
            let left_first = columns.left.get(row).zip(facts.upgraded).is_some_and(|(l, u)| l < u);
            let word = if left_first { "no_response_client_left".into() } else { word };
            let asks = word != PLAIN_HTTP;
            attempts.plain_http += usize::from(counted && !asks);
            let outcome = match known.get(word.as_ref()) {
                Some(index) => *index,
                None => {
                    attempts.outcomes.push(word.clone().into_owned());
                    known.insert(word.into_owned(), attempts.outcomes.len() - 1);
                    attempts.outcomes.len() - 1
                }
            };
            attempts.all.push(Attempt {
                counted,
                asks,
                ..columns.attempt(row, port, &facts, outcome)
            });
        }
        Ok(attempts)
    }

    pub(crate) fn outcome(&self, attempt: &Attempt) -> &str {
        &self.outcomes[attempt.outcome]
    }

    pub(crate) fn failed(&self, attempt: &Attempt) -> bool {
        outcome::is_failure(self.outcome(attempt))
    }
}

type Text<'a> = &'a StringChunked;
type Number<'a> = &'a UInt32Chunked;
type Time<'a> = &'a Int64Chunked;
type Id<'a> = &'a UInt64Chunked;

/// The columns in use, looked up once.
struct Columns<'a> {
    role: Text<'a>,
    class: Text<'a>,
    outcome: Text<'a>,
    closed_by: Text<'a>,
    closed_how: Text<'a>,
    error: Text<'a>,
    port: Number<'a>,
    local_port: Number<'a>,
    status: Number<'a>,
    retransmits: Number<'a>,
    cgroup: Id<'a>,
    leg: Id<'a>,
    first_seen: Time<'a>,
    syn_received: Time<'a>,
    syn_ack_sent: Time<'a>,
    established: Time<'a>,
    accepted: Time<'a>,
    accepted_late: &'a BooleanChunked,
    request: Time<'a>,
    response: Time<'a>,
    upgraded: Time<'a>,
    frame_in: Time<'a>,
    frame_out: Time<'a>,
    left: Time<'a>,
    closed: Time<'a>,
}

impl<'a> Columns<'a> {
    fn new(table: &'a DataFrame) -> anyhow::Result<Self> {
        let text = |name| -> anyhow::Result<Text<'a>> { Ok(table.column(name)?.str()?) };
        let number = |name| -> anyhow::Result<Number<'a>> { Ok(table.column(name)?.u32()?) };
        let time = |name| -> anyhow::Result<Time<'a>> { Ok(table.column(name)?.i64()?) };
        Ok(Self {
            role: text("role")?,
            class: text("class")?,
            outcome: text("outcome")?,
            closed_by: text("closed_by")?,
            closed_how: text("closed_how")?,
            error: text("error")?,
            port: number("port")?,
            local_port: number("local_port")?,
            status: number("http_status")?,
            retransmits: number("retransmits")?,
            cgroup: table.column("cgroup_id")?.u64()?,
            leg: table.column("leg_id")?.u64()?,
            first_seen: time("first_seen_ns")?,
            syn_received: time("syn_received_ns")?,
            syn_ack_sent: time("syn_ack_sent_ns")?,
            established: time("established_ns")?,
            accepted: time("accepted_ns")?,
            accepted_late: table.column("accepted_is_upper_bound")?.bool()?,
            request: time("request_ns")?,
            response: time("response_ns")?,
            upgraded: time("upgraded_ns")?,
            frame_in: time("first_frame_in_ns")?,
            frame_out: time("first_frame_out_ns")?,
            left: time("left_established_ns")?,
            closed: time("closed_ns")?,
        })
    }

    fn facts(&self, row: usize) -> Facts<'a> {
        Facts {
            passive: self.role.get(row) == Some("passive"),
            class: self.class.get(row).unwrap_or("unknown"),
            established: self.established.get(row),
            accepted: self.accepted.get(row),
            request: self.request.get(row),
            response: self.response.get(row),
            upgraded: self.upgraded.get(row),
            first_frame: earlier(self.frame_in.get(row), self.frame_out.get(row)),
            closed: self.closed.get(row),
            status: self.status.get(row),
            closed_by: self.closed_by.get(row).unwrap_or("unknown"),
            closed_how: self.closed_how.get(row).unwrap_or("unknown"),
            error: self.error.get(row).unwrap_or(""),
        }
    }

    /// When it was accepted. A time at which that was only noticed says nothing once the request has
    /// come before.
    fn accepted_at(&self, row: usize, facts: &Facts<'_>) -> Option<i64> {
        let late = self.accepted_late.get(row) == Some(true);
        facts.accepted.filter(|at| !late || facts.request.is_some_and(|request| *at <= request))
    }

    fn attempt(&self, row: usize, port: u32, facts: &Facts<'_>, outcome: usize) -> Attempt {
        let first_seen = self.first_seen.get(row).unwrap_or(0);
        // An active leg begins with the SYN it sends.
        let syn = self.syn_received.get(row).or((!facts.passive).then_some(first_seen));
        Attempt {
            row: row as u32,
            cgroup_id: self.cgroup.get(row).unwrap_or(0),
            port,
            passive: facts.passive,
            start_ns: syn.unwrap_or(first_seen),
            stages: [
                syn,
                self.syn_ack_sent.get(row),
                facts.established,
                self.accepted_at(row, facts),
                facts.request,
                facts.response,
                facts.upgraded,
                facts.first_frame,
            ],
            accept_noticed_ns: facts.accepted,
            left_established_ns: self.left.get(row),
            closed_ns: facts.closed,
            status: facts.status,
            retransmits: self.retransmits.get(row).unwrap_or(0),
            closed_by_remote: match facts.closed_by {
                "remote" => Some(true),
                "local" => Some(false),
                _ => None,
            },
            leg_id: self.leg.get(row),
            portless: !facts.passive
                && (self.local_port.get(row) == Some(0) || facts.error == "EADDRNOTAVAIL"),
            asks: false,
            counted: false,
            outcome,
        }
    }
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
