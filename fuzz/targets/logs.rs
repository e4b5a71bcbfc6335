//! A log that somebody kept of a server's numbers.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parsers are called")]

use libfuzzer_sys::fuzz_target;

mod scratch;

#[path = "../../analyzer/src/error.rs"]
mod error;

#[path = "../../analyzer/src/input"]
mod input {
    pub mod kept_log;
    pub mod text;
    pub mod time;
}

fuzz_target!(|bytes: &[u8]| {
    scratch::with_file(bytes, |path| {
        let _ = input::kept_log::KeptLog::read(path);
    });
});
