//! What the answer of a server takes in memory once it is parsed: tens of times its size, where somebody
//! means no good.

use super::request::Failure;

/// A quarter of what the systemd unit grants.
const ROOM: usize = 128 << 20;
/// A map of JSON has room for eleven fields at once.
const OBJECT: usize = 640;
/// Whatever is one of many.
const VALUE: usize = 64;

/// Refuses what would take too much, by what it cannot have many of without.
pub(super) fn check(body: &[u8]) -> Result<(), Failure> {
    let taken: usize = body
        .iter()
        .map(|byte| match byte {
            b'{' => OBJECT,
            b'[' | b',' | b'\n' => VALUE,
            _ => 0,
        })
        .sum();
    if taken > ROOM { Err(Failure::TooMuch { expected: ROOM >> 20 }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fill_the_memory_is_refused() {
        for dense in ["1,", "[", "{},", "{\"\":0},", "a 1\n", "a,b\n"] {
            let refused = check(dense.repeat((64 << 20) / dense.len()).as_bytes()).unwrap_err();
            assert!(
                refused.to_string().ends_with("expected 128 MiB of them at the most"),
                "{dense}"
            );
        }
        // As long, of connections and of metrics as servers list them.
        let entry = r#"{"id":"b7e1c0aa","peer":"192.0.2.1:50000","since":"2026-11-30T10:00:00Z","shard":3},"#;
        assert!(check(entry.repeat(100_000).as_bytes()).is_ok());
        let metric = "http_requests_total{code=\"200\",method=\"get\",shard=\"3\"} 1027\n";
        assert!(check(metric.repeat(100_000).as_bytes()).is_ok());
    }
}
