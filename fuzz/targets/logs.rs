//! A log that somebody kept of a server's numbers.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parsers are called")]

use libfuzzer_sys::fuzz_target;

#[path = "../../analyzer/src/error.rs"]
mod error;

#[path = "../../analyzer/src/input"]
mod input {
    pub mod kept_log;
    pub mod text;
    pub mod time;
}

thread_local! {
    static SCRATCH: tempfile::NamedTempFile =
        tempfile::NamedTempFile::new().expect("a scratch file can be made");
}

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.with(|file| {
        std::fs::write(file, bytes).expect("scratch can be written");
        let _ = input::kept_log::KeptLog::read(file.path());
    });
});
