//! Puts the pieces of first payloads together, by address pair, until their heads are parsed; then
//! keeps only what the heads said.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Deref,
};

use probe_common::{
    connection::{Connection, class},
    handshake::Pair,
    payload::{LIMIT, Piece},
    state::role,
};

use super::http::{Head, Parser, REASON, Request};

/// Bits of [`Http::flags`].
pub mod flag {
    /// The request asked for `Upgrade: websocket`.
    pub const ASKS_FOR_WEBSOCKET: u32 = 1 << 0;
    /// The response's accept key is not the one that answers the request's key.
    pub const WRONG_ACCEPT: u32 = 1 << 1;
    /// The client's first bytes are no HTTP/1 request.
    pub const NO_HTTP_REQUEST: u32 = 1 << 2;
    /// The server's first bytes are no HTTP/1 response.
    pub const NO_HTTP_RESPONSE: u32 = 1 << 3;
}

/// What the heads of a connection said. All zero where none was seen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Http {
    /// Salted hash of the WebSocket key: the same on every leg that passes it on.
    pub key_hash: u64,
    /// [`flag`] bits.
    pub flags: u32,
    /// Status of the first response that is not interim.
    pub status: u16,
    pub reason_length: u16,
    pub reason: [u8; REASON],
    /// When the response's head was whole, and when bytes followed a head in the same packet: frames
    /// that the kernel side can't tell from the head. Monotonic ns, 0 if never.
    pub response_ns: u64,
    pub after_request_ns: u64,
    pub after_response_ns: u64,
}

impl Http {
    pub const NONE: Self = Self {
        key_hash: 0,
        flags: 0,
        status: 0,
        reason_length: 0,
        reason: [0; REASON],
        response_ns: 0,
        after_request_ns: 0,
        after_response_ns: 0,
    };

    /// Reason phrase of the first response.
    #[must_use]
    pub fn reason(&self) -> &str {
        let bytes = self.reason.get(..usize::from(self.reason_length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// A connection with what is known above TCP, and of its handshake before it was established.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    pub connection: Connection,
    pub http: Http,
    /// [`probe_common::handshake::flag`] bits of a handshake that never became a connection.
    pub handshake_flags: u32,
    pub syn_acks: u32,
}

// No padding, so that it can travel as bytes.
const _: () = assert!(size_of::<Observed>() == size_of::<Connection>() + size_of::<Http>() + 8);

impl From<Connection> for Observed {
    fn from(connection: Connection) -> Self {
        Self::new(connection, Http::NONE)
    }
}

impl Observed {
    /// Adds what the heads said to what the kernel side made of single packets.
    #[must_use]
    pub fn new(mut connection: Connection, http: Http) -> Self {
        if connection.line_length == Connection::LATER_UPGRADE {
            // What was parsed and timed was an earlier request.
            (connection.request_ns, connection.response_ns) = (0, 0);
            let http = Http { flags: flag::ASKS_FOR_WEBSOCKET, ..Http::NONE };
            return Self { connection, http, handshake_flags: 0, syn_acks: 0 };
        }
        if http.status != 0 {
            connection.http_status = http.status;
        } else if http.flags & flag::NO_HTTP_REQUEST != 0 {
            connection.seen_class = class::OTHER;
        }
        if http.status == 101 {
            connection.seen_class = class::UPGRADED;
            if connection.upgraded_ns == 0 {
                connection.upgraded_ns = http.response_ns;
            }
            let (from_client, from_server) = if connection.role == role::ACTIVE {
                (&mut connection.first_frame_out_ns, &mut connection.first_frame_in_ns)
            } else {
                (&mut connection.first_frame_in_ns, &mut connection.first_frame_out_ns)
            };
            // A frame that came before the answer waited for it.
            frame_at(from_client, http.after_request_ns, connection.upgraded_ns);
            frame_at(from_server, http.after_response_ns, connection.upgraded_ns);
        }
        Self { connection, http, handshake_flags: 0, syn_acks: 0 }
    }
}

fn frame_at(first_ns: &mut u64, at_ns: u64, not_before_ns: u64) {
    if at_ns != 0 && (*first_ns == 0 || at_ns < *first_ns) {
        *first_ns = at_ns.max(not_before_ns);
    }
}

impl Deref for Observed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Bytes of a direction that are kept until its head is whole.
const MOST: usize = LIMIT as usize;

/// One direction's bytes, until its head is parsed.
#[derive(Default)]
enum Stream {
    #[default]
    Empty,
    Open(Vec<u8>),
    Done,
}

impl Stream {
    /// What is there with a piece of `new` bytes at `offset`, if that is more than before.
    fn with<'a>(&'a mut self, offset: u32, new: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Done => None,
            // Most heads are whole in their first piece, which is parsed where it lies.
            Self::Empty => (offset == 0 && !new.is_empty()).then_some(new),
            // A gap can't be parsed across; a repetition brings nothing.
            Self::Open(bytes) if bytes.len() != offset as usize || bytes.len() == MOST => None,
            Self::Open(bytes) => {
                bytes.extend(new.iter().take(MOST - bytes.len()));
                Some(bytes)
            }
        }
    }

    /// The head goes on after this piece.
    fn wait(&mut self, first: &[u8]) {
        if let Self::Empty = self {
            *self = Self::Open(first.to_vec());
        }
    }
}

/// What a head may still come of.
#[derive(Default)]
struct Unparsed {
    request: Stream,
    response: Stream,
    accept_hash: u64,
}

impl Unparsed {
    fn is_done(&self) -> bool {
        matches!((&self.request, &self.response), (Stream::Done, Stream::Done))
    }
}

/// [`Http`], as small as it can be kept: there is one for every open connection that has talked.
#[derive(Default)]
struct Heads {
    key_hash: u64,
    response_ns: u64,
    after_request_ns: u64,
    after_response_ns: u64,
    reason: Cow<'static, str>,
    flags: u32,
    status: u16,
    /// The last look at what the kernel follows did not meet it.
    is_missing: bool,
}

/// What nearly all long-lived connections were answered.
const USUAL_REASON: &str = "Switching Protocols";

impl Heads {
    fn http(&self) -> Http {
        let mut reason = [0; REASON];
        reason[..self.reason.len()].copy_from_slice(self.reason.as_bytes());
        Http {
            key_hash: self.key_hash,
            flags: self.flags,
            status: self.status,
            reason_length: self.reason.len() as u16,
            reason,
            response_ns: self.response_ns,
            after_request_ns: self.after_request_ns,
            after_response_ns: self.after_response_ns,
        }
    }
}

struct Conversation {
    /// `None` once both heads were parsed.
    unparsed: Option<Box<Unparsed>>,
    heads: Heads,
}

// A hash table has up to twice as many places as entries.
const _: () = assert!(size_of::<(Pair, Conversation)>() <= 112);

impl Conversation {
    fn new() -> Self {
        Self { unparsed: Some(Box::default()), heads: Heads::default() }
    }

    fn has_request(&self) -> bool {
        self.unparsed.as_ref().is_none_or(|unparsed| !matches!(unparsed.request, Stream::Empty))
    }
}

/// Every conversation whose connection is not over.
#[derive(Default)]
pub struct Follower {
    parser: Parser,
    conversations: HashMap<Pair, Conversation>,
}

impl Follower {
    /// Takes a piece and its payload.
    pub fn feed(&mut self, piece: &Piece, bytes: &[u8]) {
        let conversation = self.conversations.entry(piece.pair).or_insert_with(Conversation::new);
        // What comes on a listener comes from a client.
        let from_client = (piece.incoming == 1) == (piece.role != role::ACTIVE);
        if from_client && piece.offset == 0 && conversation.has_request() {
            // Of another connection between the same two: the earlier one's record was lost.
            *conversation = Conversation::new();
        }
        let Some(unparsed) = &mut conversation.unparsed else { return };
        if from_client {
            unparsed.feed_request(&mut conversation.heads, &self.parser, piece, bytes);
        } else {
            unparsed.feed_response(&mut conversation.heads, &self.parser, piece, bytes);
        }
        if unparsed.is_done() {
            conversation.unparsed = None;
        }
    }

    /// What is known of an open connection.
    #[must_use]
    pub fn get(&self, connection: &Connection) -> Http {
        self.conversations.get(&Pair::of(connection)).map_or(Http::NONE, |found| found.heads.http())
    }

    /// The same, of one that is over: it is forgotten.
    pub fn take(&mut self, connection: &Connection) -> Http {
        let Some(found) = self.conversations.remove(&Pair::of(connection)) else {
            return Http::NONE;
        };
        self.give_back();
        found.heads.http()
    }

    /// Forgets those that are not among `followed` for the second time: their records were lost. At the first
    /// time a record may still be on its way. True if some are missing for the first time.
    pub fn forget_missing(&mut self, followed: &HashSet<Pair>) -> bool {
        let mut again = false;
        self.conversations.retain(|pair, conversation| {
            let was_missing = conversation.heads.is_missing;
            conversation.heads.is_missing = !followed.contains(pair);
            again |= conversation.heads.is_missing && !was_missing;
            !(conversation.heads.is_missing && was_missing)
        });
        self.give_back();
        again
    }

    /// What a rush of connections took is given back after it.
    fn give_back(&mut self) {
        if self.conversations.len() < self.conversations.capacity() / 8 {
            self.conversations.shrink_to(self.conversations.len() * 2);
        }
    }
}

impl Unparsed {
    fn feed_request(&mut self, heads: &mut Heads, parser: &Parser, piece: &Piece, new: &[u8]) {
        let Some(bytes) = self.request.with(piece.offset, new) else { return };
        match parser.request(bytes) {
            // What there is of a head that goes on beyond what is looked at, up to its last whole line.
            Head::Partial if bytes.len() == MOST => {
                if let Head::Whole(request, _) = parser.request(&whole_lines(bytes)) {
                    self.note_request(heads, &request);
                }
            }
            Head::Partial => return self.request.wait(new),
            Head::Whole(request, length) => {
                if bytes.len() > length {
                    heads.after_request_ns = piece.at_ns;
                }
                self.note_request(heads, &request);
            }
            Head::Bad => heads.flags |= flag::NO_HTTP_REQUEST,
        }
        self.request = Stream::Done;
    }

    fn note_request(&mut self, heads: &mut Heads, request: &Request) {
        if request.asks_for_websocket {
            heads.flags |= flag::ASKS_FOR_WEBSOCKET;
        }
        heads.key_hash = request.key_hash;
        self.accept_hash = request.accept_hash;
    }

    fn feed_response(&mut self, heads: &mut Heads, parser: &Parser, piece: &Piece, new: &[u8]) {
        let Some(bytes) = self.response.with(piece.offset, new) else { return };
        match parser.response(bytes) {
            Head::Partial => return self.response.wait(new),
            Head::Whole(response, length) => {
                heads.response_ns = piece.at_ns;
                if bytes.len() > length {
                    heads.after_response_ns = piece.at_ns;
                }
                heads.status = response.status;
                heads.reason = match response.reason.as_str() {
                    USUAL_REASON => USUAL_REASON.into(),
                    _ => response.reason.into(),
                };
                let asked = self.accept_hash != 0;
                if response.status == 101 && asked && response.accept_hash != self.accept_hash {
                    heads.flags |= flag::WRONG_ACCEPT;
                }
            }
            Head::Bad => heads.flags |= flag::NO_HTTP_RESPONSE,
        }
        self.response = Stream::Done;
    }
}

/// A head that was cut off, ended after its last whole line.
fn whole_lines(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.windows(2).rposition(|two| two == b"\r\n").unwrap_or(0);
    [&bytes[..end], b"\r\n\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::polled::empty_connection;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";

    fn piece(port: u16, incoming: bool, at_ns: u64, text: &[u8]) -> Piece {
        Piece {
            tag: 0,
            at_ns,
            pair: Pair { remote_port: port, ..Pair::default() },
            offset: 0,
            length: text.len() as u16,
            incoming: incoming.into(),
            role: role::PASSIVE,
        }
    }

    fn feed(follower: &mut Follower, port: u16, incoming: bool, at_ns: u64, text: &[u8]) {
        follower.feed(&piece(port, incoming, at_ns, text), text);
    }

    fn connection(port: u16) -> Connection {
        Connection { remote_port: port, ..empty_connection() }
    }

    #[test]
    fn what_the_heads_said_is_kept_and_their_bytes_are_not() {
        let answers = [("Switching Protocols", 101), ("Too Many Clients", 503)];
        for (port, (reason, status)) in (1..).zip(answers) {
            let mut follower = Follower::default();
            feed(&mut follower, port, true, 5, REQUEST);
            assert_eq!(follower.get(&connection(port)).flags, flag::ASKS_FOR_WEBSOCKET);
            let answer = format!("HTTP/1.1 {status} {reason}\r\n\r\n");
            feed(&mut follower, port, false, 9, answer.as_bytes());
            assert!(follower.conversations.values().all(|found| found.unparsed.is_none()));
            // Frames and further answers change nothing.
            feed(&mut follower, port, false, 11, b"HTTP/1.1 404 Not Found\r\n\r\n");
            let http = follower.take(&connection(port));
            assert_eq!((http.status, http.reason(), http.response_ns), (status, reason, 9));
            assert_eq!(follower.take(&connection(port)).status, 0);
        }
    }

    #[test]
    fn heads_are_put_together_and_a_refusal_needs_no_more_than_its_first_line() {
        let mut follower = Follower::default();
        for (at, byte) in REQUEST.iter().enumerate() {
            assert_eq!(follower.get(&connection(7)).flags, 0);
            let piece = Piece { offset: at as u32, ..piece(7, true, 5, &[*byte]) };
            follower.feed(&piece, &[*byte]);
        }
        assert_eq!(follower.get(&connection(7)).flags, flag::ASKS_FOR_WEBSOCKET);
        feed(&mut follower, 7, false, 9, b"HTTP/1.1 503 Service Unavailable\r\nServer: a");
        let http = follower.get(&connection(7));
        assert_eq!((http.status, http.reason(), http.response_ns), (503, "Service Unavailable", 9));
        assert!(follower.conversations.values().all(|found| found.unparsed.is_none()));

        // Half of a status line is none, and a 101 is one only with its key.
        for (port, answer) in
            [(8, "HTTP/1.1 503 Serv"), (9, "HTTP/1.1 101 Switching Protocols\r\nUpg")]
        {
            feed(&mut follower, port, true, 5, REQUEST);
            feed(&mut follower, port, false, 9, answer.as_bytes());
            assert_eq!(follower.get(&connection(port)).status, 0);
        }
    }

    #[test]
    fn another_connection_between_the_same_two_inherits_nothing() {
        let mut follower = Follower::default();
        feed(&mut follower, 7, true, 5, REQUEST);
        feed(&mut follower, 7, false, 9, b"HTTP/1.1 503 Too Many Clients\r\n\r\n");
        // Its record is lost, so nobody takes it.
        feed(&mut follower, 7, true, 11, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(follower.get(&connection(7)).flags, 0);
        assert_eq!(follower.get(&connection(7)).status, 0);
        feed(&mut follower, 7, false, 13, b"HTTP/1.1 200 OK\r\n\r\n");
        let http = follower.take(&connection(7));
        assert_eq!((http.status, http.reason(), http.response_ns), (200, "OK", 13));
    }

    #[test]
    fn what_the_kernel_follows_no_longer_is_forgotten_at_the_second_look() {
        let mut follower = Follower::default();
        for port in [7, 8, 9] {
            feed(&mut follower, port, true, 5, REQUEST);
        }
        let pairs = |ports: &[u16]| ports.iter().map(|port| Pair::of(&connection(*port))).collect();
        assert!(follower.forget_missing(&pairs(&[7])));
        // A connection between the same two as one that was missing, and its record.
        feed(&mut follower, 8, true, 6, REQUEST);
        assert!(follower.forget_missing(&pairs(&[7])));
        let flags = [7, 8, 9].map(|port| follower.get(&connection(port)).flags);
        assert_eq!(flags, [flag::ASKS_FOR_WEBSOCKET, flag::ASKS_FOR_WEBSOCKET, 0]);
        assert!(!follower.forget_missing(&pairs(&[7, 8])));
        assert_eq!(follower.conversations.len(), 2);
    }

    #[test]
    fn after_a_rush_its_memory_is_given_back() {
        let mut follower = Follower::default();
        for port in 0..10_000 {
            feed(&mut follower, port, true, 5, REQUEST);
        }
        for port in 23..10_000 {
            follower.take(&connection(port));
        }
        assert_eq!(follower.conversations.len(), 23);
        assert!(follower.conversations.capacity() < 400);
        assert_eq!(follower.get(&connection(7)).flags, flag::ASKS_FOR_WEBSOCKET);
    }
}
