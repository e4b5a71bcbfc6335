//! A table of a capture: an Arrow IPC stream.

#![no_main]

mod capture_with;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capture_with::read("connections.arrows", bytes));
