//! A capture comes from another machine: whatever stands in its files is read or refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use capture::meta::Meta;
use capture::schema::{ConnectionRow, Table};
use capture::{Capture, CaptureWriter};
use common::{connection, meta};
use proptest::prelude::*;

/// Of a capture's files.
const META: &str = "meta.json";
const TABLE: &str = "connections.arrows";

struct Originals {
    _directory: tempfile::TempDir,
    capture: PathBuf,
}

fn originals() -> Originals {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("capture");
    let mut writer = CaptureWriter::create(&capture, &meta()).unwrap();
    let rows: Vec<_> = (0..3).map(connection).collect();
    writer.connections(&rows).unwrap();
    let mut ended = meta();
    ended.ended_mono_ns = Some(99);
    writer.finish(&ended).unwrap();
    Originals { _directory: directory, capture }
}

/// Rows that could be read; what could not is an error with a message.
fn read(capture: &Path) -> Result<usize, String> {
    let capture = Capture::open(capture).map_err(|error| error.to_string())?;
    let mut rows = 0;
    for batch in capture.batches(Table::Connections).map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        // Looks at the cells.
        assert!(!format!("{:?}", batch.columns()).is_empty());
        rows += batch.num_rows();
    }
    Ok(rows)
}

fn check(file: &str, bytes: &[u8]) {
    let originals = originals();
    let path = originals.capture.join(file);
    fs::write(&path, bytes).unwrap();
    match read(&originals.capture) {
        // A length that was damaged may not make rows out of nothing.
        Ok(rows) => assert!(rows <= 1000, "{rows} rows of 3"),
        Err(message) => assert!(!message.is_empty()),
    }
}

/// As the writer makes it now, and what libFuzzer made of it.
fn original(file: &str, corpus: &str) -> Vec<Vec<u8>> {
    let mut all = fuzz::corpus(corpus);
    all.push(fs::read(originals().capture.join(file)).unwrap());
    all
}

#[test]
fn what_was_found_is_read_again() {
    for (file, corpus) in [(META, "capture_meta"), (TABLE, "capture_table")] {
        original(file, corpus).iter().for_each(|bytes| check(file, bytes));
    }
}

/// With them, sums and differences of what is read would overflow.
#[test]
fn numbers_that_no_host_reaches_are_refused() {
    let refused = |change: &dyn Fn(&mut Meta, &mut ConnectionRow), expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture");
        let (mut meta, mut row) = (meta(), connection(0));
        change(&mut meta, &mut row);
        let mut writer = CaptureWriter::create(&path, &meta).unwrap();
        writer.connections(&[row]).unwrap();
        writer.finish(&meta).unwrap();
        let message = read(&path).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    refused(&|_, row| row.closed_ns = Some(i64::MAX), "column closed_ns has 9223372036854775807: ");
    refused(
        &|_, row| row.first_seen_ns = i64::MIN,
        "column first_seen_ns has 9223372036854775808: ",
    );
    refused(
        &|_, row| row.bytes_sent = Some(u64::MAX),
        "column bytes_sent has 18446744073709551615: ",
    );
    for change in [
        |meta: &mut Meta| meta.started_mono_ns = i64::MAX,
        |meta: &mut Meta| meta.started_unix_ns = i64::MIN,
        |meta: &mut Meta| meta.ended_mono_ns = Some(i64::MAX),
    ] {
        refused(&|meta, _| change(meta), " ns is no time: expected no more than ");
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn hostile_meta(bytes in fuzz::damaged(original(META, "capture_meta"))) {
        check(META, &bytes);
    }

    #[test]
    fn hostile_table(bytes in fuzz::damaged(original(TABLE, "capture_table"))) {
        check(TABLE, &bytes);
    }
}
