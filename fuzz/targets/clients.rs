//! Results of load tools, of every format.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parsers are called")]

use libfuzzer_sys::fuzz_target;

mod scratch;

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

fuzz_target!(|bytes: &[u8]| {
    let map: ColumnMap = "time=time,unit=ms,outcome=outcome".parse().expect("it is one");
    scratch::with_file(bytes, |path| {
        for map in [None, Some(&map)] {
            let _ = read(path, map, &mut ClientResults::default());
        }
    });
});
