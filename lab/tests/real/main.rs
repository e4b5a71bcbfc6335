//! Tests with the real program: every server, client and connection is one.

mod common;
mod faults;
mod handshakes;
mod load;
