//! The binary on real sockets: what it prints, and its exit codes.

mod bad_input;
mod common;
mod config;
mod count;
mod record;
mod watch;
