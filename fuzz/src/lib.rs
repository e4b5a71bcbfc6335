//! Hostile input for the parsers' tests: files of `corpus/`, as they are and damaged.
//!
//! `cargo xtask fuzz` runs libFuzzer on the same parsers (`targets/`); what it finds goes to `corpus/`. Here
//! the mutations are proptest's: each failure shrinks to the smallest input, and `PROPTEST_CASES=1000000
//! cargo test -p capture hostile` runs for minutes. It does not follow coverage as libFuzzer does.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

/// The same cases at every run, unless `PROPTEST_RNG_SEED` or `PROPTEST_CASES` asks for others.
#[must_use]
pub fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random && std::env::var_os("PROPTEST_CASES").is_none() {
        config.rng_seed = RngSeed::Fixed(997);
    }
    config
}

/// The files of a corpus by name, in order.
///
/// # Panics
/// If there is no such corpus, or it is empty.
#[must_use]
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths.iter().map(|path| fs::read(path).expect("a corpus can be read")).collect()
}

/// One damage.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte becomes another.
    Set(Index, u8),
    /// What follows is gone.
    Cut(Index),
    /// A piece is gone.
    Remove(Index, usize),
    /// Bytes appear.
    Insert(Index, Vec<u8>),
    /// A piece comes twice, or elsewhere.
    Copy(Index, Index, usize),
    /// Digits become a number that fits nowhere.
    Number(Index, &'static str),
}

const NUMBERS: [&str; 7] = [
    "-1",
    "0",
    "18446744073709551615",
    "-9223372036854775808",
    "99999999999999999999999999",
    "1e308",
    "NaN",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1..64_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..16))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (at(), at(), 1..64_usize).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        2 => (at(), prop::sample::select(&NUMBERS[..]))
            .prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Remove(at, count) => {
                let from = at.index(length);
                drop(bytes.drain(from..length.min(from + count)));
            }
            Self::Insert(at, new) => {
                let at = at.index(length);
                drop(bytes.splice(at..at, new.iter().copied()));
            }
            Self::Copy(from, to, count) => {
                let from = from.index(length);
                let piece = bytes[from..length.min(from + count)].to_vec();
                let to = to.index(length);
                drop(bytes.splice(to..to, piece));
            }
            Self::Number(at, number) => {
                let from = at.index(length);
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let Some(start) = bytes[from..].iter().position(is_digit) else { return };
                let start = from + start;
                let digits = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                drop(bytes.splice(start..start + digits, number.bytes()));
            }
        }
    }
}

/// One of the originals, whole or damaged in up to five places.
///
/// # Panics
/// If there is no original.
pub fn damaged(originals: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damages = prop::collection::vec(damage(), 0..6);
    (prop::sample::select(originals), damages).prop_map(|(mut bytes, damages)| {
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        bytes
    })
}
