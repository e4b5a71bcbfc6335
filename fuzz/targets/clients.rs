//! Results of load tools, of every format.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parsers are called")]

use libfuzzer_sys::fuzz_target;

#[path = "../../analyzer/src/error.rs"]
mod error;

#[path = "../../analyzer/src/client"]
mod client {
    pub mod spread;
}

#[path = "../../analyzer/src/input"]
mod input {
    pub mod client;
    pub mod text;
    pub mod time;
}

use input::client::{ClientResults, mapped::ColumnMap, read};

thread_local! {
    static SCRATCH: tempfile::NamedTempFile =
        tempfile::NamedTempFile::new().expect("a scratch file can be made");
}

fuzz_target!(|bytes: &[u8]| {
    let map: ColumnMap = "time=time,unit=ms,outcome=outcome".parse().expect("it is one");
    SCRATCH.with(|file| {
        std::fs::write(file, bytes).expect("scratch can be written");
        for map in [None, Some(&map)] {
            let _ = read(file.path(), map, &mut ClientResults::default());
        }
    });
});
