//! Attempts: the rows that asked for an upgrade, or went to a port where every connection does.

use std::collections::HashMap;

use crate::handshake::outcome::{self, Facts, NO_LISTENER, PLAIN_HTTP, UPGRADED};
use crate::handshake::refused_poll::RefusedPolls;
use crate::input::connections::{Connections, Flag, Number, Time, Word};
use crate::input::recording::Recording;
use crate::population::Members;

/// Times taken in the handling of one event lie closer together than this.
const SAME_EVENT_NS: i64 = 100_000;

pub(crate) const STAGE_COUNT: usize = 8;
pub(crate) const SYN: usize = 0;
pub(crate) const SYN_ACK: usize = 1;
pub(crate) const ESTABLISHED: usize = 2;
pub(crate) const ACCEPTED: usize = 3;
pub(crate) const REQUEST: usize = 4;
pub(crate) const RESPONSE: usize = 5;
pub(crate) const UPGRADE: usize = 6;

/// One leg's handshake: a look at its row. Times are monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    attempts: &'a Attempts<'a>,
    kept: Kept,
}

/// What is kept of an attempt beside its row.
#[derive(Clone, Copy, Debug)]
struct Kept {
    row: u32,
    /// Index into [`Attempts::outcomes`].
    outcome: u16,
    asks: bool,
    counted: bool,
}

impl<'a> Attempt<'a> {
    fn connections(self) -> &'a Connections {
        self.attempts.connections
    }

    /// Row of `connections`.
    pub(crate) fn row(self) -> usize {
        self.kept.row as usize
    }

    /// Whether it asked for an upgrade. A plain request may be what a proxy made of one that did.
    pub(crate) fn asks(self) -> bool {
        self.kept.asks
    }

    /// Whether the figures are about it.
    pub(crate) fn counted(self) -> bool {
        self.kept.counted
    }

    pub(crate) fn outcome(self) -> &'a str {
        &self.attempts.outcomes[usize::from(self.kept.outcome)]
    }

    pub(crate) fn failed(self) -> bool {
        self.attempts.fails[usize::from(self.kept.outcome)]
    }

    pub(crate) fn passive(self) -> bool {
        self.connections().word_place(Word::Role, self.row()) == self.attempts.passive
    }

    pub(crate) fn cgroup_id(self) -> u64 {
        self.connections().number(Number::Cgroup, self.row()).unwrap_or(0)
    }

    pub(crate) fn port(self) -> u32 {
        self.connections().small(Number::Port, self.row()).unwrap_or(0)
    }

    pub(crate) fn status(self) -> Option<u32> {
        self.connections().small(Number::HttpStatus, self.row())
    }

    pub(crate) fn retransmits(self) -> u32 {
        self.connections().small(Number::Retransmits, self.row()).unwrap_or(0)
    }

    /// Payload that the process sent, whether it left the host or not.
    pub(crate) fn bytes_sent(self) -> u64 {
        self.connections().number(Number::BytesSent, self.row()).unwrap_or(0)
    }

    pub(crate) fn leg_id(self) -> Option<u64> {
        self.connections().number(Number::LegId, self.row())
    }

    pub(crate) fn closed_by_remote(self) -> Option<bool> {
        match self.connections().word(Word::ClosedBy, self.row()) {
            Some("remote") => Some(true),
            Some("local") => Some(false),
            _ => None,
        }
    }

    /// A connect that found no source port.
    pub(crate) fn portless(self) -> bool {
        !self.passive()
            && (self.connections().small(Number::LocalPort, self.row()) == Some(0)
                || self.connections().word(Word::Error, self.row()) == Some("EADDRNOTAVAIL"))
    }

    fn time(self, time: Time) -> Option<i64> {
        self.connections().time(time, self.row())
    }

    pub(crate) fn closed_ns(self) -> Option<i64> {
        self.time(Time::Closed)
    }

    /// An active leg begins with the SYN it sends, unless it was met later than that.
    fn syn_ns(self) -> Option<i64> {
        let is_sent = !self.passive() && !self.was_established_before();
        let sent = || is_sent.then(|| self.time(Time::FirstSeen).unwrap_or(0));
        self.time(Time::SynReceived).or_else(sent)
    }

    /// The time of `established` is only when that was noticed.
    fn was_established_before(self) -> bool {
        self.connections().flag(Flag::EstablishedIsUpperBound, self.row())
    }

    pub(crate) fn start_ns(self) -> i64 {
        self.syn_ns().or_else(|| self.time(Time::FirstSeen)).unwrap_or(0)
    }

    /// Time of one of [`crate::handshake::stage::STAGES`].
    pub(crate) fn at(self, stage: usize) -> Option<i64> {
        match stage {
            SYN => self.syn_ns(),
            SYN_ACK => self.time(Time::SynAckSent),
            ESTABLISHED => self.time(Time::Established),
            ACCEPTED => self.accepted_ns(),
            REQUEST => self.time(Time::Request),
            RESPONSE => self.time(Time::Response),
            UPGRADE => self.time(Time::Upgraded),
            _ => self.connections().first_frame(self.row()),
        }
    }

    /// From one stage to another, 0 where that came first (deferred accept, Fast Open). `None` where either was not
    /// seen, or is an upper bound.
    pub(crate) fn took_ns(self, from: usize, to: usize) -> Option<i64> {
        if [from, to].contains(&ESTABLISHED) && self.was_established_before() {
            return None;
        }
        Some((self.at(to)? - self.at(from)?).max(0))
    }

    /// When it was accepted. A time at which that was only noticed says nothing once the request has
    /// come before.
    fn accepted_ns(self) -> Option<i64> {
        let late = self.connections().flag(Flag::AcceptedIsUpperBound, self.row());
        let in_time = |at: &i64| !late || self.at(REQUEST).is_some_and(|request| *at <= request);
        self.time(Time::Accepted).filter(in_time)
    }

    /// When it stopped being established.
    pub(crate) fn left_ns(self) -> Option<i64> {
        self.time(Time::LeftEstablished).or_else(|| self.closed_ns())
    }

    /// From the request's first byte to the answer's, or to the end where there was none.
    pub(crate) fn answer_ns(self) -> Option<i64> {
        // A client that has left waits no longer, even where the server keeps its end open.
        let until = self.at(RESPONSE).or_else(|| self.left_ns())?;
        Some(until - self.at(REQUEST)?)
    }

    /// The SYN was answered, and not on behalf of a socket: the SYN-ACK carried a cookie, and the last ACK
    /// brought it back. `egress`: the recording saw what sockets sent.
    pub(crate) fn by_syn_cookie(self, egress: bool) -> bool {
        let [syn, syn_ack, established] = [SYN, SYN_ACK, ESTABLISHED].map(|stage| self.at(stage));
        egress && self.passive() && syn.is_some() && syn_ack.is_none() && established.is_some()
    }

    /// How long it waited for the process, from the kernel's `established`; at least so long where
    /// the accept was noticed late, `None` where nothing tells.
    pub(crate) fn accept_wait_ns(self) -> Option<i64> {
        let established = self.at(ESTABLISHED)?;
        let until = match (self.at(ACCEPTED), self.time(Time::Accepted)) {
            (Some(accepted), _) => accepted,
            // Every change of state looks whether the socket was accepted: it was not when the
            // connection left `established`, if that was noticed only later.
            (None, Some(noticed)) => {
                self.time(Time::LeftEstablished).filter(|left| left + SAME_EVENT_NS < noticed)?
            }
            (None, None) => self.left_ns()?,
        };
        Some(until - established)
    }
}

/// Every attempt of a recording, in the order of the table.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    connections: &'a Connections,
    all: Vec<Kept>,
    outcomes: Vec<String>,
    /// Whether each of `outcomes` is a failure.
    fails: Vec<bool>,
    /// The word `passive`.
    passive: Option<usize>,
    /// Requests that asked for no upgrade.
    pub(crate) plain_http: usize,
    /// Rows of which neither outcome nor request is known: no handshake can be told from them.
    pub(crate) untold: usize,
}

impl<'a> Attempts<'a> {
    /// `counted` says which rows the figures are about; the rest may be upstream legs of theirs.
    pub(crate) fn new(recording: &'a Recording, counted: &Members<'_>) -> Self {
        let connections = &recording.connections;
        let mut attempts = Attempts {
            connections,
            all: Vec::new(),
            outcomes: Vec::new(),
            fails: Vec::new(),
            passive: connections.words(Word::Role).iter().position(|word| **word == *"passive"),
            plain_http: 0,
            untold: 0,
        };
        let mut words = OutcomeWords::default();
        let mut refused_polls = RefusedPolls::new(recording);
        for row in 0..connections.len() {
            let counted = counted.has(row);
            let outcome = match connections.word_place(Word::Outcome, row) {
                // What is encrypted may be an upgrade, and may not.
                Some(place) if *connections.words(Word::Outcome)[place] == *"tls" => None,
                // A 101 that comes after its client has gone was no answer to it.
                Some(_) if left_first(connections, row) => {
                    Some(words.index(&mut attempts, "no_response_client_left"))
                }
                Some(place) => Some(words.of_recorder(&mut attempts, place)),
                None => told_by_facts(connections, row, &recording.meta.selection.websocket_ports)
                    .map(|word| {
                        let left_first = left_first(connections, row);
                        let word = if left_first { "no_response_client_left" } else { &word };
                        words.index(&mut attempts, word)
                    }),
            };
            let Some(outcome) = outcome else {
                attempts.untold += usize::from(counted);
                continue;
            };
            let of_nobody = attempts.outcomes[usize::from(outcome)] == NO_LISTENER;
            let outcome = if of_nobody && refused_polls.take(connections, row) {
                words.index(&mut attempts, PLAIN_HTTP)
            } else {
                outcome
            };
            let asks = attempts.outcomes[usize::from(outcome)] != PLAIN_HTTP;
            attempts.plain_http += usize::from(counted && !asks);
            attempts.all.push(Kept { row: row as u32, outcome, asks, counted });
        }
        attempts
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, index: usize) -> Attempt<'_> {
        Attempt { attempts: self, kept: self.all[index] }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Attempt<'_>> {
        self.all.iter().map(|kept| Attempt { attempts: self, kept: *kept })
    }

    fn push_outcome(&mut self, word: &str) -> u16 {
        // Words are from a fixed list, and statuses have three digits; a damaged file may hold more,
        // which share the last.
        if let Ok(index) = u16::try_from(self.outcomes.len()) {
            self.outcomes.push(word.to_owned());
            self.fails.push(outcome::is_failure(word));
            return index;
        }
        u16::MAX
    }
}

/// Which index each word was given.
#[derive(Debug, Default)]
struct OutcomeWords {
    known: HashMap<String, u16>,
    /// By the place of the recorder's word.
    by_place: Vec<Option<u16>>,
}

impl OutcomeWords {
    fn index(&mut self, attempts: &mut Attempts<'_>, word: &str) -> u16 {
        if let Some(index) = self.known.get(word) {
            return *index;
        }
        let index = attempts.push_outcome(word);
        self.known.insert(word.to_owned(), index);
        index
    }

    fn of_recorder(&mut self, attempts: &mut Attempts<'_>, place: usize) -> u16 {
        let words = attempts.connections.words(Word::Outcome);
        self.by_place.resize(words.len(), None);
        if let Some(index) = self.by_place[place] {
            return index;
        }
        let index = self.index(attempts, &words[place]);
        self.by_place[place] = Some(index);
        index
    }
}

fn left_first(connections: &Connections, row: usize) -> bool {
    let upgraded = connections.time(Time::Upgraded, row);
    upgraded.is_some_and(|at| {
        connections.time(Time::LeftEstablished, row).is_some_and(|left| left < at)
    })
}

/// The outcome of a row for which the recorder has no word; `None` where no handshake can be told.
fn told_by_facts(
    connections: &Connections,
    row: usize,
    websocket_ports: &[u16],
) -> Option<std::borrow::Cow<'static, str>> {
    if connections.flag(Flag::Seeded, row) {
        return None; // its handshake was before the recording
    }
    let facts = facts(connections, row);
    let port = connections.small(Number::Port, row).unwrap_or(0);
    let always = websocket_ports.iter().any(|websocket| u32::from(*websocket) == port);
    if always || facts.upgraded.is_some() || facts.class == UPGRADED {
        Some(outcome::of(&facts))
    } else {
        (facts.class == "http").then_some(PLAIN_HTTP.into())
    }
}

fn facts(connections: &Connections, row: usize) -> Facts<'_> {
    let time = |time| connections.time(time, row);
    let word = |word| connections.word(word, row).unwrap_or("unknown");
    Facts {
        passive: word(Word::Role) == "passive",
        class: word(Word::Class),
        established: time(Time::Established),
        accepted: time(Time::Accepted),
        request: time(Time::Request),
        response: time(Time::Response),
        upgraded: time(Time::Upgraded),
        first_frame: connections.first_frame(row),
        closed: time(Time::Closed),
        status: connections.small(Number::HttpStatus, row),
        closed_by: word(Word::ClosedBy),
        closed_how: word(Word::ClosedHow),
        error: connections.word(Word::Error, row).unwrap_or(""),
    }
}
