//! The first bytes of a connection: whatever the network brought, wherever it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../probe-user/src/handshake/http.rs"]
mod http;

use http::{Head, Parser, REASON};

fuzz_target!(|bytes: &[u8]| {
    let parser = Parser::default();
    if let Head::Whole(_, length) = parser.request(bytes) {
        assert!(length <= bytes.len());
    }
    if let Head::Whole(response, length) = parser.response(bytes) {
        assert!(length <= bytes.len());
        assert!(response.reason.len() <= REASON);
        assert!(!response.reason.contains(char::is_control));
    }
});
