//! Puts the pieces of first payloads together, by address pair, until their heads are parsed; then
//! keeps only what the heads said.

use std::{collections::HashMap, ops::Deref};

use probe_common::{
    connection::{Connection, class},
    handshake::Pair,
    payload::{LIMIT, Payload},
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
    /// Adds a piece; returns what is there so far, if anything is new.
    fn push(&mut self, piece: &Payload) -> Option<&[u8]> {
        if let Self::Empty = self {
            *self = Self::Open(Vec::new());
        }
        let Self::Open(bytes) = self else { return None };
        let new = piece.bytes.get(..usize::from(piece.length))?;
        // A gap can't be parsed across; a repetition brings nothing.
        if bytes.len() != piece.offset as usize || bytes.len() == MOST {
            return None;
        }
        bytes.extend(new.iter().take(MOST - bytes.len()));
        Some(bytes)
    }
}

struct Conversation {
    request: Stream,
    response: Stream,
    accept_hash: u64,
    http: Http,
}

/// Every conversation whose connection is not over.
#[derive(Default)]
pub struct Follower {
    parser: Parser,
    conversations: HashMap<Pair, Conversation>,
}

impl Follower {
    pub fn feed(&mut self, piece: &Payload) {
        let conversation = self.conversations.entry(piece.pair).or_insert_with(|| Conversation {
            request: Stream::Empty,
            response: Stream::Empty,
            accept_hash: 0,
            http: Http::NONE,
        });
        // What comes on a listener comes from a client.
        let from_client = (piece.incoming == 1) == (piece.role != role::ACTIVE);
        if from_client {
            conversation.feed_request(&self.parser, piece);
        } else {
            conversation.feed_response(&self.parser, piece);
        }
    }

    /// What is known of an open connection.
    #[must_use]
    pub fn get(&self, connection: &Connection) -> Http {
        self.conversations.get(&pair(connection)).map_or(Http::NONE, |found| found.http)
    }

    /// The same, of one that is over: it is forgotten.
    pub fn take(&mut self, connection: &Connection) -> Http {
        self.conversations.remove(&pair(connection)).map_or(Http::NONE, |found| found.http)
    }
}

impl Conversation {
    fn feed_request(&mut self, parser: &Parser, piece: &Payload) {
        let Some(bytes) = self.request.push(piece) else { return };
        match parser.request(bytes) {
            // What there is of a head that goes on beyond what is looked at, up to its last whole line.
            Head::Partial if bytes.len() == MOST => {
                if let Head::Whole(request, _) = parser.request(&whole_lines(bytes)) {
                    self.note_request(&request);
                }
            }
            Head::Partial => return,
            Head::Whole(request, length) => {
                if bytes.len() > length {
                    self.http.after_request_ns = piece.at_ns;
                }
                self.note_request(&request);
            }
            Head::Bad => self.http.flags |= flag::NO_HTTP_REQUEST,
        }
        self.request = Stream::Done;
    }

    fn note_request(&mut self, request: &Request) {
        if request.asks_for_websocket {
            self.http.flags |= flag::ASKS_FOR_WEBSOCKET;
        }
        self.http.key_hash = request.key_hash;
        self.accept_hash = request.accept_hash;
    }

    fn feed_response(&mut self, parser: &Parser, piece: &Payload) {
        let Some(bytes) = self.response.push(piece) else { return };
        match parser.response(bytes) {
            Head::Partial => return,
            Head::Whole(response, length) => {
                self.http.response_ns = piece.at_ns;
                if bytes.len() > length {
                    self.http.after_response_ns = piece.at_ns;
                }
                self.http.status = response.status;
                let reason = response.reason.as_bytes();
                self.http.reason[..reason.len()].copy_from_slice(reason);
                self.http.reason_length = reason.len() as u16;
                let asked = self.accept_hash != 0;
                if response.status == 101 && asked && response.accept_hash != self.accept_hash {
                    self.http.flags |= flag::WRONG_ACCEPT;
                }
            }
            Head::Bad => self.http.flags |= flag::NO_HTTP_RESPONSE,
        }
        self.response = Stream::Done;
    }
}

/// A head that was cut off, ended after its last whole line.
fn whole_lines(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.windows(2).rposition(|two| two == b"\r\n").unwrap_or(0);
    [&bytes[..end], b"\r\n\r\n"].concat()
}

fn pair(connection: &Connection) -> Pair {
    Pair {
        local_address: connection.local_address,
        remote_address: connection.remote_address,
        netns: connection.netns,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
    }
}
