//! Parses the heads of the first request and the first response of a connection. Input is hostile:
//! whatever the network brought.
//!
//! Nothing of a head is kept but the response's status and reason, and a salted hash of the WebSocket
//! key, which links the legs of one client through a proxy.

use std::hash::{BuildHasher, RandomState};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};

/// Headers that are looked at; a head with more is not understood.
const MAX_HEADERS: usize = 96;
/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the request asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// It has `Upgrade: websocket`.
    pub asks_for_websocket: bool,
    /// Salted hash of `Sec-WebSocket-Key`; 0 without one.
    pub key_hash: u64,
    /// Hash of the `Sec-WebSocket-Accept` that answers the key; 0 without a key.
    pub accept_hash: u64,
}

/// What the response said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// As sent, without control characters, at most [`REASON`] bytes.
    pub reason: String,
    /// Salted hash of `Sec-WebSocket-Accept`; 0 without one.
    pub accept_hash: u64,
}

impl Response {
    fn is_interim(&self) -> bool {
        self.status != 101 && self.status / 100 == 1
    }
}

/// Bytes of a reason phrase that are kept.
pub const REASON: usize = 40;

/// Whether a head is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head<T> {
    /// More bytes are needed.
    Partial,
    /// It takes up so many bytes.
    Whole(T, usize),
    /// Not HTTP/1.
    Bad,
}

/// Hashes keys with the salt of this process, so that a capture holds none.
#[derive(Debug, Default)]
pub struct Parser {
    salt: RandomState,
}

impl Parser {
    fn hash(&self, value: &[u8]) -> u64 {
        // 0 stands for "none"; 53 bits survive every JSON reader.
        (self.salt.hash_one(value) >> 11).max(1)
    }

    #[must_use]
    pub fn request(&self, bytes: &[u8]) -> Head<Request> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Partial) => return Head::Partial,
            Ok(httparse::Status::Complete(length)) => length,
            Err(_) => return Head::Bad,
        };
        let mut request = Request::default();
        for header in parsed.headers.iter() {
            if header.name.eq_ignore_ascii_case("upgrade") {
                request.asks_for_websocket |= has_token(header.value, "websocket");
            } else if header.name.eq_ignore_ascii_case("sec-websocket-key") {
                let key = header.value.trim_ascii();
                request.key_hash = self.hash(key);
                request.accept_hash = self.hash(accept_for(key).as_bytes());
            }
        }
        Head::Whole(request, length)
    }

    /// The response that counts: interim ones such as `103 Early Hints` are passed over.
    #[must_use]
    pub fn response(&self, bytes: &[u8]) -> Head<Response> {
        let mut from = 0;
        loop {
            match self.one_response(bytes.get(from..).unwrap_or_default()) {
                Head::Whole(interim, length) if interim.is_interim() => from += length,
                Head::Whole(response, length) => return Head::Whole(response, from + length),
                other => return other,
            }
        }
    }

    fn one_response(&self, bytes: &[u8]) -> Head<Response> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            // Of a refusal no more is asked than its first line, and no more is brought of a long one.
            Ok(httparse::Status::Partial)
                if parsed.reason.is_some() && parsed.code.is_some_and(|code| code / 100 != 1) =>
            {
                bytes.len()
            }
            Ok(httparse::Status::Partial) => return Head::Partial,
            Err(_) => return Head::Bad,
        };
        let mut response = Response {
            status: parsed.code.unwrap_or(0),
            reason: printable(parsed.reason.unwrap_or("")),
            accept_hash: 0,
        };
        for header in parsed.headers.iter() {
            if header.name.eq_ignore_ascii_case("sec-websocket-accept") {
                response.accept_hash = self.hash(header.value.trim_ascii());
            }
        }
        Head::Whole(response, length)
    }
}

fn accept_for(key: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(WEBSOCKET_GUID);
    BASE64_STANDARD.encode(sha1.finalize())
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// A reason phrase that is safe to print, cut at a character.
fn printable(reason: &str) -> String {
    let mut kept = String::new();
    for character in reason.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > REASON {
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key and accept of RFC 6455, section 1.3.
    const REQUEST: &[u8] =
        b"\r\nGET /chat?token=secret HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn the_accept_of_the_rfc_answers_its_key() {
        let parser = Parser::default();
        let Head::Whole(request, length) = parser.request(REQUEST) else { panic!("no request") };
        assert_eq!(length, REQUEST.len());
        let Head::Whole(response, _) = parser.response(RESPONSE) else { panic!("no response") };
        assert!(request.asks_for_websocket);
        assert_eq!(request.accept_hash, response.accept_hash);
        assert_ne!(request.key_hash, 0);
        assert_eq!((response.status, response.reason.as_str()), (101, "Switching Protocols"));
    }

    #[test]
    fn every_prefix_is_partial_and_none_panics() {
        let parser = Parser::default();
        for end in 0..REQUEST.len() {
            assert_eq!(parser.request(&REQUEST[..end]), Head::Partial, "{end} bytes");
        }
        for end in 0..RESPONSE.len() {
            assert_eq!(parser.response(&RESPONSE[..end]), Head::Partial, "{end} bytes");
        }
    }

    #[test]
    fn interim_responses_are_passed_over() {
        let parser = Parser::default();
        let bytes =
            [b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", RESPONSE, b"\x81\x00"].concat();
        let Head::Whole(response, length) = parser.response(&bytes) else { panic!("no response") };
        assert_eq!((response.status, length), (101, bytes.len() - 2));
        assert_eq!(parser.response(&bytes[..41]), Head::Partial);
    }

    #[test]
    fn a_reason_is_cut_and_cleaned() {
        assert_eq!(printable("slots\u{7} full"), "slots full");
        assert_eq!(printable(&"é".repeat(REASON)).len(), REASON);
    }

    #[test]
    fn other_protocols_are_not_http() {
        let parser = Parser::default();
        assert_eq!(parser.request(b"\x16\x03\x01\x02\x00\x01"), Head::Bad);
        assert_eq!(parser.response(b"SSH-2.0-OpenSSH_9.2\r\n"), Head::Bad);
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// Whatever the network brings, wherever it is cut.
        #[test]
        fn hostile_heads(bytes in fuzz::damaged(fuzz::corpus("http"))) {
            let parser = Parser::default();
            if let Head::Whole(_, length) = parser.request(&bytes) {
                prop_assert!(length <= bytes.len());
            }
            if let Head::Whole(response, length) = parser.response(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert!(response.reason.len() <= REASON);
                prop_assert!(!response.reason.contains(char::is_control));
            }
        }
    }
}
