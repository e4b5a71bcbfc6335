//! Handshakes above TCP: what the first bytes said, and what came of them.

pub mod follow;
pub mod http;
pub mod outcome;
