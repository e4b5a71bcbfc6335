//! How a capture travels from the agent that records it: a file's name, and what is to be appended to
//! it, each after its length (one byte, and four in network order).

use anyhow::ensure;

/// The first: the recording's number, by which it is stopped.
pub(crate) const NUMBER: &str = "number";
/// The last: what the recording came to, as JSON.
pub(crate) const FINISHED: &str = "finished";
/// The last of one that failed: why, in words.
pub(crate) const FAILED: &str = "failed";

/// Longer pieces than any that an agent sends.
const LONGEST: usize = 256 << 20;

pub(crate) fn frame(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + name.len() + bytes.len());
    frame.push(name.len() as u8);
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Takes a whole frame off the front, if there is one.
///
/// # Errors
/// For what is no frame.
pub(crate) fn take(buffer: &mut Vec<u8>) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let Some(&name) = buffer.first() else { return Ok(None) };
    let name_end = 1 + usize::from(name);
    let Some(length) = buffer.get(name_end..name_end + 4) else { return Ok(None) };
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    ensure!(length <= LONGEST, "a piece of {length} bytes is longer than any of a capture");
    let end = name_end + 4 + length;
    if buffer.len() < end {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(&buffer[1..name_end]).into_owned();
    let bytes = buffer[name_end + 4..end].to_vec();
    buffer.drain(..end);
    Ok(Some((name, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_any_pieces() {
        let sent = [frame("counts.arrows", b"abc"), frame("meta.json", b""), frame("x", &[7; 300])];
        let mut buffer = Vec::new();
        let mut arrived = Vec::new();
        for byte in sent.concat() {
            buffer.push(byte);
            arrived.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(
            arrived,
            [
                ("counts.arrows".into(), b"abc".to_vec()),
                ("meta.json".into(), vec![]),
                ("x".into(), vec![7; 300])
            ]
        );
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(take(&mut b"\x01x\xff\xff\xff\xff".to_vec()).is_err());
    }
}
