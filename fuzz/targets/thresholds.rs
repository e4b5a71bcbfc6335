//! A thresholds file.

#![no_main]
#![allow(dead_code, unexpected_cfgs, reason = "only the parser is called")]

use libfuzzer_sys::fuzz_target;

mod scratch;

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

fuzz_target!(|bytes: &[u8]| {
    scratch::with_file(bytes, threshold::read);
});
