//! How records travel from the agent to our own commands over its Unix socket: a header, then the
//! `repr(C)` records as they are. Both ends are on one host; a different layout is refused.

use std::mem::size_of;

use probe_common::key::CountSlot;

use crate::{handshake::follow::Observed, kernel::pin::BUILD};

/// Length of the header in front of the records.
pub(crate) const HEADER: usize = 12 + BUILD.len();
const MAGIC: [u8; 4] = *b"gtr2";

mod sealed {
    pub(crate) trait Sealed {}
    impl Sealed for super::CountSlot {}
    impl Sealed for super::Observed {}
}

/// A record that may travel: `repr(C)`, no padding, valid for any bytes.
pub(crate) trait Record: Copy + sealed::Sealed {
    /// Tells the kinds apart in the header.
    const KIND: u32;
}

impl Record for CountSlot {
    const KIND: u32 = 1;
}

impl Record for Observed {
    const KIND: u32 = 2;
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum LayoutError {
    #[error("the answer is no list of records")]
    NotRecords,
    #[error(
        "the agent is of another build ({agent}, this probe {BUILD}): restart the agent with the installed version"
    )]
    OtherBuild { agent: String },
    #[error("{bytes} bytes are no whole number of records")]
    Partial { bytes: usize },
}

/// What stands before records of this kind.
pub(crate) fn header<R: Record>() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&R::KIND.to_ne_bytes());
    header[8..12].copy_from_slice(&(size_of::<R>() as u32).to_ne_bytes());
    header[12..].copy_from_slice(BUILD.as_bytes());
    header
}

/// The records as bytes.
pub(crate) fn bytes<R: Record>(records: &[R]) -> &[u8] {
    // SAFETY: `Record` is sealed to types without padding (asserted in probe-common), so every byte
    // is initialised; u8 has no alignment, and the length is the slice's own.
    unsafe { std::slice::from_raw_parts(records.as_ptr().cast(), size_of_val(records)) }
}

/// Checks a header.
pub(crate) fn check_header<R: Record>(bytes: &[u8]) -> Result<(), LayoutError> {
    let header = bytes.get(..HEADER).ok_or(LayoutError::NotRecords)?;
    if header == self::header::<R>() {
        return Ok(());
    }
    if header[0..4] == MAGIC && &header[12..] != BUILD.as_bytes() {
        let agent = header[12..].escape_ascii().to_string();
        return Err(LayoutError::OtherBuild { agent });
    }
    Err(LayoutError::NotRecords)
}

/// Takes whole records off the front of `buffer`, leaving what has not arrived whole.
pub(crate) fn take<R: Record>(buffer: &mut Vec<u8>) -> Vec<R> {
    let whole = buffer.len() / size_of::<R>() * size_of::<R>();
    let records = buffer[..whole]
        .chunks_exact(size_of::<R>())
        // SAFETY: the chunk has the record's size, `Record` types are valid for any bytes, and
        // read_unaligned asks for no alignment.
        .map(|chunk| unsafe { chunk.as_ptr().cast::<R>().read_unaligned() })
        .collect();
    buffer.drain(..whole);
    records
}

/// Reads a whole answer: header and records.
pub(crate) fn parse<R: Record>(answer: &[u8]) -> Result<Vec<R>, LayoutError> {
    check_header::<R>(answer)?;
    let mut rest = answer[HEADER..].to_vec();
    let records = take(&mut rest);
    if rest.is_empty() { Ok(records) } else { Err(LayoutError::Partial { bytes: answer.len() }) }
}

#[cfg(test)]
mod tests {
    use probe_common::key::CountKey;

    use super::*;

    fn slots() -> Vec<CountSlot> {
        (1..=3)
            .map(|port| CountSlot {
                key: CountKey { port, ..CountKey::default() },
                states: [i64::from(port); 12],
                ..CountSlot::default()
            })
            .collect()
    }

    #[test]
    fn records_arrive_as_they_left() {
        let answer = [&header::<CountSlot>(), bytes(&slots())].concat();
        let read: Vec<CountSlot> = parse(&answer).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(bytes(&read), bytes(&slots()));
    }

    #[test]
    fn a_stream_is_cut_anywhere() {
        let slots = slots();
        let all = bytes(&slots);
        let mut buffer = all[..200].to_vec();
        assert_eq!(take::<CountSlot>(&mut buffer).len(), 1);
        buffer.extend_from_slice(&all[200..]);
        assert_eq!(take::<CountSlot>(&mut buffer).len(), 2);
        assert!(buffer.is_empty());
    }

    #[test]
    fn other_layouts_are_refused() {
        let mut other = header::<CountSlot>();
        other[12..].copy_from_slice(b"0123456789abcdef");
        assert_eq!(
            parse::<CountSlot>(&other).unwrap_err(),
            LayoutError::OtherBuild { agent: "0123456789abcdef".into() }
        );
        assert_eq!(parse::<Observed>(&header::<CountSlot>()).unwrap_err(), LayoutError::NotRecords);
        assert_eq!(parse::<CountSlot>(b"HTTP").unwrap_err(), LayoutError::NotRecords);
        let torn = [&header::<CountSlot>()[..], &[0; 7]].concat();
        assert_eq!(
            parse::<CountSlot>(&torn).unwrap_err(),
            LayoutError::Partial { bytes: HEADER + 7 }
        );
    }
}
