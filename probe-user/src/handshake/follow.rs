//! Puts the pieces of first payloads together, by address pair, until their heads are parsed; then
//! keeps only what the heads said.

use std::{collections::HashMap, ops::Deref};

use probe_common::{
    connection::Connection,
    handshake::Pair,
    payload::{LIMIT, Payload},
    state::role,
};

use super::http::{Head, Parser, REASON};

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
    /// Status of the first response.
    pub status: u16,
    pub reason_length: u16,
    pub reason: [u8; REASON],
}

impl Http {
    pub const NONE: Self =
        Self { key_hash: 0, flags: 0, status: 0, reason_length: 0, reason: [0; REASON] };

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
        Self { connection, http: Http::NONE, handshake_flags: 0, syn_acks: 0 }
    }
}

impl Deref for Observed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

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
        if bytes.len() != piece.offset as usize || bytes.len() + new.len() > LIMIT as usize {
            return None;
        }
        bytes.extend_from_slice(new);
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
            Head::Partial => return,
            Head::Whole(request) => {
                if request.asks_for_websocket {
                    self.http.flags |= flag::ASKS_FOR_WEBSOCKET;
                }
                self.http.key_hash = request.key_hash;
                self.accept_hash = request.accept_hash;
            }
            Head::Bad => self.http.flags |= flag::NO_HTTP_REQUEST,
        }
        self.request = Stream::Done;
    }

    fn feed_response(&mut self, parser: &Parser, piece: &Payload) {
        let Some(bytes) = self.response.push(piece) else { return };
        match parser.response(bytes) {
            Head::Partial => return,
            Head::Whole(response) => {
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

fn pair(connection: &Connection) -> Pair {
    Pair {
        local_address: connection.local_address,
        remote_address: connection.remote_address,
        netns: connection.netns,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
    }
}
