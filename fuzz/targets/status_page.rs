//! The status page of a server that is asked for its numbers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &str| {
    for number in status_page::numbers(page) {
        assert!(!number.name.is_empty());
    }
});
