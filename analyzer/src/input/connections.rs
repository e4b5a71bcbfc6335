//! The connections of a capture as the analysis needs them: a few bytes for each, so that ten million
//! fit in a laptop's memory.
//!
//! Rows are packed by the chunk, column by column. Times are kept by what they exceed the row's first
//! one by, words by their place in a list, IPv4 addresses as the number that they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, BooleanArray, PrimitiveArray, RecordBatch, StringArray};
use capture::ReadError;
use capture::schema::{Column, Table};

use crate::both::both;
use crate::error::InputError;
use crate::input::packed::{NONE, Packed};

/// Rows that are packed together.
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 16;

/// Monotonic nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    FirstSeen,
    SynReceived,
    SynAckSent,
    Established,
    Accepted,
    Request,
    Response,
    Upgraded,
    FirstFrameIn,
    FirstFrameOut,
    LeftEstablished,
    Closed,
    Released,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    Role,
    State,
    Class,
    Outcome,
    ClosedBy,
    ClosedHow,
    Error,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Cookie,
    Cgroup,
    Port,
    LocalPort,
    RemotePort,
    HttpStatus,
    Retransmits,
    UnansweredProbes,
    LastHeardMs,
    BytesSent,
    BytesReceived,
    LegId,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Address {
    Local,
    Remote,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Flag {
    Seeded,
    DescriptorHeld,
    EstablishedIsUpperBound,
    AcceptedIsUpperBound,
}

const TIMES: [(Time, &str); 13] = [
    (Time::FirstSeen, "first_seen_ns"),
    (Time::SynReceived, "syn_received_ns"),
    (Time::SynAckSent, "syn_ack_sent_ns"),
    (Time::Established, "established_ns"),
    (Time::Accepted, "accepted_ns"),
    (Time::Request, "request_ns"),
    (Time::Response, "response_ns"),
    (Time::Upgraded, "upgraded_ns"),
    (Time::FirstFrameIn, "first_frame_in_ns"),
    (Time::FirstFrameOut, "first_frame_out_ns"),
    (Time::LeftEstablished, "left_established_ns"),
    (Time::Closed, "closed_ns"),
    (Time::Released, "released_ns"),
];
const WORDS: [&str; 7] = ["role", "state", "class", "outcome", "closed_by", "closed_how", "error"];
const NUMBERS: [&str; 12] = [
    "cookie",
    "cgroup_id",
    "port",
    "local_port",
    "remote_port",
    "http_status",
    "retransmits",
    "unanswered_probes",
    "last_heard_ms",
    "bytes_sent",
    "bytes_received",
    "leg_id",
];
const ADDRESSES: [&str; 2] = ["local_address", "remote_address"];
const FLAGS: [&str; 4] =
    ["seeded", "fd_held_at_close", "established_is_upper_bound", "accepted_is_upper_bound"];

const FIRST_WORD: usize = TIMES.len();
const FIRST_NUMBER: usize = FIRST_WORD + WORDS.len();
const FIRST_ADDRESS: usize = FIRST_NUMBER + NUMBERS.len();
const FIRST_FLAG: usize = FIRST_ADDRESS + ADDRESSES.len();
const COLUMNS: usize = FIRST_FLAG + FLAGS.len();

/// What a time is kept relative to, where the first time is not the nearest.
const fn reference(time: Time) -> Time {
    match time {
        Time::Upgraded => Time::Response,
        Time::FirstFrameOut => Time::FirstFrameIn,
        Time::LeftEstablished => Time::Closed,
        _ => Time::FirstSeen,
    }
}

/// The words of one column, each once, in order of appearance.
#[derive(Debug, Default)]
struct Words {
    list: Vec<Box<str>>,
    places: HashMap<Box<str>, usize>,
    last: usize,
}

impl Words {
    /// Rows of one kind come in runs.
    fn place(&mut self, word: &str) -> usize {
        if self.list.get(self.last).is_some_and(|last| **last == *word) {
            return self.last;
        }
        self.last = match self.places.get(word) {
            Some(place) => *place,
            None => {
                self.list.push(word.into());
                self.places.insert(word.into(), self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.last
    }
}

/// Every row of the table, in its order.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    chunks: Vec<Box<[Packed]>>,
    rows: usize,
    words: [Words; WORDS.len()],
    /// Addresses that are no IPv4 ones.
    addresses: Words,
}

impl Connections {
    /// Opens the table twice, each time with some of the columns, and reads both at the same time.
    ///
    /// # Errors
    /// Those of `open`, and of the batches.
    pub(crate) fn read<B>(
        open: impl Fn(Vec<Column>) -> Result<B, InputError> + Sync,
    ) -> Result<Self, InputError>
    where
        B: Iterator<Item = Result<RecordBatch, ReadError>>,
    {
        // Times are kept relative to each other, so that they stay together.
        let read = |part: Range<usize>| Self::read_part(part.start, open(columns(part))?);
        let (times, others) = both(|| read(0..FIRST_WORD), || read(FIRST_WORD..COLUMNS));
        let (times, mut all) = (times?, others?);
        let chunks = times
            .chunks
            .into_iter()
            .zip(all.chunks)
            .map(|(times, others)| times.into_iter().chain(others).collect());
        all.chunks = chunks.collect();
        Ok(all)
    }

    /// Only the columns that the batches have: those from `first` on.
    fn read_part(
        first: usize,
        batches: impl Iterator<Item = Result<RecordBatch, ReadError>>,
    ) -> Result<Self, InputError> {
        let mut connections = Self::default();
        let mut chunk = Chunk::default();
        for batch in batches {
            let batch = batch?;
            let mut from = 0;
            while from < batch.num_rows() {
                let length = (CHUNK - chunk.rows).min(batch.num_rows() - from);
                connections.append(&mut chunk, first, &batch.slice(from, length));
                from += length;
                if chunk.rows == CHUNK {
                    connections.chunks.push(chunk.pack(first));
                }
            }
            connections.rows += batch.num_rows();
        }
        if chunk.rows > 0 {
            connections.chunks.push(chunk.pack(first));
        }
        Ok(connections)
    }

    fn append(&mut self, chunk: &mut Chunk, first: usize, batch: &RecordBatch) {
        chunk.columns.resize_with(batch.num_columns(), Vec::new);
        for (place, (array, into)) in (first..).zip(batch.columns().iter().zip(&mut chunk.columns))
        {
            if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
                extend(into, numbers, |value| value);
            } else if let Some(numbers) = array.as_primitive_opt::<UInt64Type>() {
                extend(into, numbers, |value| value as i64);
            } else if let Some(numbers) = array.as_primitive_opt::<UInt32Type>() {
                extend(into, numbers, i64::from);
            } else if let Some(flags) = array.as_boolean_opt() {
                into.extend(flag_values(flags));
            } else if let Some(text) = array.as_string_opt::<i32>() {
                if place < FIRST_NUMBER {
                    let words = &mut self.words[place - FIRST_WORD];
                    into.extend(text_values(text, |word| words.place(word) as i64));
                } else {
                    let others = &mut self.addresses;
                    into.extend(text_values(text, |address| address_value(address, others)));
                }
            }
        }
        chunk.rows += batch.num_rows();
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    #[inline]
    fn get(&self, column: usize, row: usize) -> Option<i64> {
        self.chunks[row >> CHUNK_BITS][column].get(row & (CHUNK - 1))
    }

    #[inline]
    pub(crate) fn time(&self, time: Time, row: usize) -> Option<i64> {
        let value = self.get(time as usize, row)?;
        match time {
            Time::FirstSeen => Some(value),
            _ => Some(value.wrapping_add(self.reference(time, row))),
        }
    }

    #[inline]
    fn reference(&self, time: Time, row: usize) -> i64 {
        let first = self.get(Time::FirstSeen as usize, row).unwrap_or(0);
        match reference(time) {
            Time::FirstSeen => first,
            nearer => self.get(nearer as usize, row).map_or(first, |by| first.wrapping_add(by)),
        }
    }

    /// The first frame either way.
    pub(crate) fn first_frame(&self, row: usize) -> Option<i64> {
        let (in_, out) = (self.time(Time::FirstFrameIn, row), self.time(Time::FirstFrameOut, row));
        in_.into_iter().chain(out).min()
    }

    #[inline]
    pub(crate) fn number(&self, number: Number, row: usize) -> Option<u64> {
        self.get(FIRST_NUMBER + number as usize, row).map(|value| value as u64)
    }

    /// Of a column whose numbers have 32 bits.
    #[inline]
    pub(crate) fn small(&self, number: Number, row: usize) -> Option<u32> {
        self.get(FIRST_NUMBER + number as usize, row).map(|value| value as u32)
    }

    #[inline]
    pub(crate) fn flag(&self, flag: Flag, row: usize) -> bool {
        self.get(FIRST_FLAG + flag as usize, row) == Some(1)
    }

    /// The word's place in [`Self::words`].
    #[inline]
    pub(crate) fn word_place(&self, word: Word, row: usize) -> Option<usize> {
        self.get(FIRST_WORD + word as usize, row).map(|place| place as usize)
    }

    /// Every word of the column, each once.
    pub(crate) fn words(&self, word: Word) -> &[Box<str>] {
        &self.words[word as usize].list
    }

    #[inline]
    pub(crate) fn word(&self, word: Word, row: usize) -> Option<&str> {
        Some(&self.words[word as usize].list[self.word_place(word, row)?])
    }

    /// Equal exactly where the addresses are.
    #[inline]
    pub(crate) fn address_key(&self, address: Address, row: usize) -> Option<i64> {
        self.get(FIRST_ADDRESS + address as usize, row)
    }

    /// The key that such an address has in this capture, if it is there at all.
    pub(crate) fn key_of(&self, address: IpAddr) -> Option<i64> {
        match address.to_canonical() {
            IpAddr::V4(address) => Some(address.to_bits().into()),
            IpAddr::V6(address) => {
                let place = self.addresses.places.get(address.to_string().as_str())?;
                Some(other_address(*place))
            }
        }
    }

    pub(crate) fn address(&self, address: Address, row: usize) -> Option<Cow<'_, str>> {
        let key = self.address_key(address, row)?;
        Some(match u32::try_from(key) {
            Ok(bits) => Ipv4Addr::from_bits(bits).to_string().into(),
            Err(_) => Cow::Borrowed(&self.addresses.list[(key - other_address(0)) as usize]),
        })
    }
}

/// Some of the columns in use, which come in the order of [`Time`], [`Word`], [`Number`], [`Address`],
/// [`Flag`].
fn columns(part: Range<usize>) -> Vec<Column> {
    let names = TIMES.iter().map(|(_, name)| *name);
    let names = names.chain(WORDS).chain(NUMBERS).chain(ADDRESSES).chain(FLAGS);
    let names = names.skip(part.start).take(part.len());
    let known = Table::Connections.columns();
    names.filter_map(|name| known.iter().find(|column| column.name == name).copied()).collect()
}

fn extend<T: arrow_array::ArrowPrimitiveType>(
    into: &mut Vec<i64>,
    array: &PrimitiveArray<T>,
    value: impl Fn(T::Native) -> i64,
) {
    match array.nulls() {
        None => into.extend(array.values().iter().map(|native| value(*native))),
        Some(nulls) => into.extend(
            array.values().iter().zip(nulls).map(|(v, there)| if there { value(*v) } else { NONE }),
        ),
    }
}

fn flag_values(array: &BooleanArray) -> impl Iterator<Item = i64> + '_ {
    array.iter().map(|flag| flag.map_or(NONE, i64::from))
}

fn text_values(
    array: &StringArray,
    mut value: impl FnMut(&str) -> i64,
) -> impl Iterator<Item = i64> {
    array.iter().map(move |text| text.map_or(NONE, &mut value))
}

fn address_value(address: &str, others: &mut Words) -> i64 {
    match address.parse::<Ipv4Addr>() {
        Ok(address) => address.to_bits().into(),
        Err(_) => other_address(others.place(address)),
    }
}

/// Above every IPv4 address.
fn other_address(place: usize) -> i64 {
    (1 << 32) + place as i64
}

/// Rows that are not yet packed.
#[derive(Debug, Default)]
struct Chunk {
    columns: Vec<Vec<i64>>,
    rows: usize,
}

impl Chunk {
    /// Leaves it empty. `first` is the column that it begins with.
    fn pack(&mut self, first: usize) -> Box<[Packed]> {
        if first == 0 {
            self.make_times_relative();
        }
        let packed = self.columns.iter().map(|column| Packed::new(column)).collect();
        self.columns.iter_mut().for_each(Vec::clear);
        self.rows = 0;
        packed
    }

    fn make_times_relative(&mut self) {
        // Those that are kept relative to another than the first come before what they refer to is
        // made relative itself.
        for nearer in [true, false] {
            for (time, _) in TIMES {
                let is_nearer = reference(time) != Time::FirstSeen;
                if time != Time::FirstSeen && is_nearer == nearer {
                    self.make_relative(time);
                }
            }
        }
    }

    fn make_relative(&mut self, time: Time) {
        let mut column = std::mem::take(&mut self.columns[time as usize]);
        let first = &self.columns[Time::FirstSeen as usize];
        let to = &self.columns[reference(time) as usize];
        for ((value, to), first) in column.iter_mut().zip(to).zip(first) {
            if *value != NONE {
                let first = if *first == NONE { 0 } else { *first };
                let by = value.wrapping_sub(if *to == NONE { first } else { *to });
                // Only times centuries apart could meet the value that stands for none.
                *value = if by == NONE { NONE + 1 } else { by };
            }
        }
        self.columns[time as usize] = column;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_one_of_the_table() {
        let columns: Vec<&str> = columns(0..COLUMNS).iter().map(|column| column.name).collect();
        assert_eq!(columns.len(), COLUMNS);
        for (place, (time, name)) in TIMES.iter().enumerate() {
            assert_eq!((*time as usize, columns[place]), (place, *name));
        }
        assert_eq!(columns[FIRST_WORD + Word::Error as usize], "error");
        assert_eq!(columns[FIRST_NUMBER + Number::LegId as usize], "leg_id");
        assert_eq!(columns[FIRST_ADDRESS + Address::Remote as usize], "remote_address");
        let last = columns[FIRST_FLAG + Flag::AcceptedIsUpperBound as usize];
        assert_eq!(last, "accepted_is_upper_bound");
    }

    #[test]
    fn times_survive_whatever_they_are_kept_relative_to() {
        let rows = [
            [Some(10), Some(12), Some(15), None, Some(90)],
            [Some(i64::MAX - 1), Some(i64::MIN + 1), None, Some(-4), None],
            [None, Some(7), Some(3_000_000_000_000), Some(5), Some(1)],
        ];
        let times =
            [Time::FirstSeen, Time::Response, Time::Upgraded, Time::LeftEstablished, Time::Closed];
        let mut chunk = Chunk { columns: vec![Vec::new(); COLUMNS], rows: 0 };
        for row in rows {
            for column in &mut chunk.columns {
                column.push(NONE);
            }
            for (time, value) in times.into_iter().zip(row) {
                chunk.columns[time as usize][chunk.rows] = value.unwrap_or(NONE);
            }
            chunk.rows += 1;
        }
        let connections =
            Connections { chunks: vec![chunk.pack(0)], rows: rows.len(), ..Connections::default() };
        for (index, row) in rows.into_iter().enumerate() {
            for (time, value) in times.into_iter().zip(row) {
                assert_eq!(connections.time(time, index), value, "{time:?} of row {index}");
            }
        }
        assert_eq!(connections.time(Time::Accepted, 0), None);
    }

    #[test]
    fn addresses_are_told_apart_and_found() {
        let mut connections = Connections { rows: 3, ..Connections::default() };
        let mut chunk = Chunk { columns: vec![Vec::new(); COLUMNS], rows: 0 };
        let column = FIRST_ADDRESS + Address::Remote as usize;
        for address in ["10.1.2.3", "2001:db8::1", "255.255.255.255"] {
            let key = address_value(address, &mut connections.addresses);
            chunk.columns.iter_mut().for_each(|column| column.push(NONE));
            chunk.columns[column][chunk.rows] = key;
            chunk.rows += 1;
        }
        connections.chunks.push(chunk.pack(0));
        let at = |row| connections.address(Address::Remote, row).map(Cow::into_owned);
        assert_eq!(at(0).as_deref(), Some("10.1.2.3"));
        assert_eq!(at(1).as_deref(), Some("2001:db8::1"));
        assert_eq!(at(2).as_deref(), Some("255.255.255.255"));
        for row in 0..3 {
            let found = at(row).and_then(|text| connections.key_of(text.parse().ok()?));
            assert_eq!(found, connections.address_key(Address::Remote, row));
        }
        let mapped = connections.key_of("::ffff:10.1.2.3".parse().unwrap());
        assert_eq!(mapped, connections.address_key(Address::Remote, 0));
        assert_eq!(connections.key_of("2001:db8::2".parse().unwrap()), None);
    }
}
