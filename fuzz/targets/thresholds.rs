//! A thresholds file.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parser is called")]

use libfuzzer_sys::fuzz_target;

#[path = "../../analyzer/src/error.rs"]
mod error;

#[path = "../../analyzer/src/threshold"]
mod threshold {
    mod rule;

    /// The names of figures, all of which come from reports.
    pub mod measure {
        pub fn is_known(figure: &str) -> bool {
            figure.starts_with("phantoms.")
        }
    }

    pub fn read(path: &std::path::Path) {
        let _ = rule::read(path);
    }
}

thread_local! {
    static SCRATCH: tempfile::NamedTempFile =
        tempfile::NamedTempFile::new().expect("a scratch file can be made");
}

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.with(|file| {
        std::fs::write(file, bytes).expect("scratch can be written");
        threshold::read(file.path());
    });
});
