//! A capture in a tar archive: whose names, links and sizes somebody else chose.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the reader is called")]

use libfuzzer_sys::fuzz_target;

mod scratch;

#[path = "../../analyzer/src/error.rs"]
mod error;

#[path = "../../analyzer/src/input"]
mod input {
    pub mod archive;
    pub mod text;
}

fuzz_target!(|bytes: &[u8]| {
    scratch::with_file(bytes, |path| {
        let Ok(unpacked) = input::archive::open(path) else { return };
        for file in std::fs::read_dir(unpacked.capture.dir()).expect("it was unpacked").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            assert!(name == "meta.json" || name.ends_with(".arrows"), "{name}");
        }
    });
});
