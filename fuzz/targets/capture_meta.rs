//! A capture's `meta.json`.

#![no_main]

mod capture_with;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capture_with::read("meta.json", bytes));
