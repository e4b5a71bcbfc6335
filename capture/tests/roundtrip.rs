//! What is written is read again, also after the recorder was cut off, and bad captures are refused
//! with a message that helps.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use capture::copy::Copy;
use capture::schema::{ClockRow, HealthRow, LossRow, Table};
use capture::{Capture, CaptureWriter, ReadError, WriteError};
use common::{connection, meta};

fn rows(dir: &Path, table: Table) -> Vec<RecordBatch> {
    Capture::open(dir).unwrap().batches(table).unwrap().map(Result::unwrap).collect()
}

fn cookies(dir: &Path) -> Vec<u64> {
    rows(dir, Table::Connections)
        .iter()
        .flat_map(|batch| batch["cookie"].as_primitive::<UInt64Type>().values().to_vec())
        .collect()
}

#[test]
fn every_row_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("deep/capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    // More than two batches, and odd numbers on each side of a flush.
    let first: Vec<_> = (0..997).map(connection).collect();
    let second: Vec<_> = (997..20_023).map(connection).collect();
    writer.connections(&first).unwrap();
    writer.flush().unwrap();
    writer.connections(&second).unwrap();
    writer
        .health(&[HealthRow {
            url: "http://127.0.0.1:3005/health".into(),
            start_mono_ns: 5,
            end_mono_ns: 9,
            local_address: Some("127.0.0.1".parse().unwrap()),
            local_port: Some(40_001),
            http_status: Some(200),
            error: None,
            reported: Some(-3),
            fields: Some(r#"{".checks.cpu.percentage":12.5}"#.into()),
            kernel_min: None,
            kernel_max: Some(23),
        }])
        .unwrap();
    let mut ended = meta();
    ended.ended_mono_ns = Some(99);
    let summary = writer.finish(&ended).unwrap();
    assert_eq!(summary.rows[0], (Table::Connections, 20_023));
    assert_eq!(summary.rows[2], (Table::Health, 1));

    let capture = Capture::open(&dir).unwrap();
    assert_eq!(capture.meta().ended_mono_ns, Some(99));
    let table = capture.table(Table::Connections).unwrap();
    assert_eq!((table.rows(), table.truncated_at()), (20_023, None));
    assert!(table.missing_columns().is_empty());
    assert_eq!(cookies(&dir), (1..=20_023).collect::<Vec<u64>>());

    let batches = rows(&dir, Table::Connections);
    let batch = &batches[0];
    assert_eq!(batch.num_rows(), 997);
    assert_eq!(batch["remote_address"].as_string::<i32>().value(0), "127.0.0.9");
    assert_eq!(batch["comm"].as_string::<i32>().value(5), "ws-server");
    assert_eq!(batch["remote_port"].as_primitive::<UInt32Type>().value(5), 10_005);
    assert_eq!(batch["closed_ns"].null_count(), 997);
    assert!(batch["accepted_is_upper_bound"].as_boolean().value(996));

    let health = &rows(&dir, Table::Health)[0];
    assert_eq!(health["reported"].as_primitive::<Int64Type>().value(0), -3);
    assert!(health["kernel_min"].is_null(0));
    assert!(rows(&dir, Table::Containers).is_empty());
}

#[test]
fn a_killed_recorder_loses_only_what_was_not_flushed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    writer.connections(&(0..23).map(connection).collect::<Vec<_>>()).unwrap();
    writer.flush().unwrap();
    writer.connections(&(23..40).map(connection).collect::<Vec<_>>()).unwrap();
    // As after `kill -9`: nothing more is written, nothing is cleaned up.
    std::mem::forget(writer);

    let capture = Capture::open(&dir).unwrap();
    assert_eq!(capture.meta().ended_mono_ns, None);
    let table = capture.table(Table::Connections).unwrap();
    let length = fs::metadata(table.path()).unwrap().len();
    assert_eq!((table.rows(), table.truncated_at()), (23, Some(length)));
    assert_eq!(cookies(&dir), (1..=23).collect::<Vec<u64>>());
}

#[test]
fn cut_off_at_any_byte_the_whole_messages_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    let path = dir.join("clock.arrows");
    let mut ends = vec![fs::metadata(&path).unwrap().len()];
    for n in 0..3 {
        writer.clock(&[ClockRow { mono_ns: n, unix_ns: n + 1000 }]).unwrap();
        writer.flush().unwrap();
        ends.push(fs::metadata(&path).unwrap().len());
    }
    writer.finish(&meta()).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let expected = ends[1..].iter().filter(|end| **end <= cut as u64).count();
        let found: usize = rows(&dir, Table::Clock).iter().map(RecordBatch::num_rows).sum();
        assert_eq!(found, expected, "cut at {cut}");
        let last_end = ends.iter().copied().filter(|end| *end <= cut as u64).max().unwrap_or(0);
        let table = Capture::open(&dir).unwrap().table(Table::Clock).unwrap();
        assert_eq!(table.truncated_at(), Some(last_end), "cut at {cut}");
    }
    // Zeros after the last message, as a host that lost power leaves them.
    let mut zeros = whole[..ends[2] as usize].to_vec();
    zeros.resize(zeros.len() + 4096, 0);
    fs::write(&path, zeros).unwrap();
    let table = Capture::open(&dir).unwrap().table(Table::Clock).unwrap();
    assert_eq!((table.rows(), table.truncated_at()), (2, Some(ends[2])));
}

#[test]
fn an_older_minor_version_has_nulls_and_a_newer_ones_columns_are_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    CaptureWriter::create(&dir, &meta()).unwrap().finish(&meta()).unwrap();
    // A loss table without `reason`, with a column from the future.
    let full = Table::Loss.schema();
    let fields: Vec<_> = full
        .fields()
        .iter()
        .filter(|field| field.name() != "reason")
        .map(|field| field.as_ref().clone())
        .chain([arrow_schema::Field::new("colour", arrow_schema::DataType::Int64, false)])
        .collect();
    let schema = Arc::new(arrow_schema::Schema::new(fields));
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(arrow_array::Int64Array::from(vec![1])),
            Arc::new(arrow_array::Int64Array::from(vec![2])),
            Arc::new(arrow_array::UInt64Array::from(vec![7])),
            Arc::new(arrow_array::Int64Array::from(vec![0xff0000])),
        ],
    )
    .unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    stream.write(&batch).unwrap();
    fs::write(dir.join("loss.arrows"), stream.into_inner().unwrap()).unwrap();

    let table = Capture::open(&dir).unwrap().table(Table::Loss).unwrap();
    let missing: Vec<_> = table.missing_columns().iter().map(|column| column.name).collect();
    assert_eq!(missing, ["reason"]);
    let batch = &rows(&dir, Table::Loss)[0];
    assert_eq!(batch.schema().fields().len(), 4);
    assert!(batch["reason"].is_null(0));
    assert_eq!(batch["count"].as_primitive::<UInt64Type>().value(0), 7);
}

/// Captures from before minor version 1 have no metrics; those since then that lack the file are damaged.
#[test]
fn a_table_that_came_later_is_empty_in_an_older_capture() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    for (minor, refused) in [(0, false), (1, true)] {
        let mut meta = meta();
        meta.schema_minor = minor;
        CaptureWriter::create(&dir, &meta).unwrap().finish(&meta).unwrap();
        fs::remove_file(dir.join("metrics.arrows")).unwrap();
        let capture = Capture::open(&dir).unwrap();
        assert_eq!(capture.table(Table::Metrics).is_err(), refused);
        if !refused {
            assert_eq!(capture.table(Table::Metrics).unwrap().truncated_at(), None);
            assert!(rows(&dir, Table::Metrics).is_empty());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn bad_captures_are_refused_with_what_was_expected() {
    let temp = tempfile::tempdir().unwrap();
    let message = |dir: &Path, table: Table| -> String {
        let result = Capture::open(dir).and_then(|capture| capture.table(table));
        result.unwrap_err().to_string().replace(temp.path().to_str().unwrap(), "TMP")
    };

    assert_eq!(
        message(&temp.path().join("nowhere"), Table::Clock),
        "TMP/nowhere is not there: expected the directory that `probe record -o` wrote"
    );
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let no_meta = "TMP/empty is no capture: expected the directory that `probe record -o` wrote, \
                   with a meta.json in it";
    assert_eq!(message(&empty, Table::Clock), no_meta);
    fs::write(empty.join("meta.json"), "{").unwrap();
    assert_eq!(
        message(&empty, Table::Clock),
        "TMP/empty/meta.json is damaged: EOF while parsing an object at line 1 column 1"
    );

    let dir = temp.path().join("capture");
    CaptureWriter::create(&dir, &meta()).unwrap().finish(&meta()).unwrap();
    fs::remove_file(dir.join("counts.arrows")).unwrap();
    assert_eq!(
        message(&dir, Table::Counts),
        "TMP/capture/counts.arrows is missing: expected one counts table in the capture"
    );
    fs::write(dir.join("health.arrows"), "not arrow at all").unwrap();
    assert_eq!(
        message(&dir, Table::Health),
        "TMP/capture/health.arrows is no health table: expected an Arrow IPC stream, \
         found no message there"
    );
    fs::copy(dir.join("clock.arrows"), dir.join("loss.arrows")).unwrap();
    assert_eq!(
        message(&dir, Table::Loss),
        "TMP/capture/loss.arrows is no loss table: expected an Arrow IPC stream, \
         found the columns of something else"
    );

    let mut newer = meta();
    (newer.schema_major, newer.schema_minor) = (2, 0);
    let dir = temp.path().join("newer");
    CaptureWriter::create(&dir, &newer).unwrap();
    assert_eq!(
        message(&dir, Table::Clock),
        "TMP/newer was recorded with capture format 2.0, this program reads 1.x: use the analyzer \
         of the version that recorded it"
    );
}

/// Another host's recorder may be of a newer version.
#[test]
fn a_copy_leaves_out_tables_that_it_does_not_know() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let sent = Arc::new(Mutex::new(Vec::new()));
    let send = {
        let sent = Arc::clone(&sent);
        move |name: &str, bytes: &[u8]| {
            sent.lock().unwrap().push((name.to_owned(), bytes.to_vec()));
            Ok(())
        }
    };
    let mut writer = CaptureWriter::stream(Arc::new(send), &meta()).unwrap();
    writer.connections(&[connection(0), connection(1)]).unwrap();
    writer.finish(&meta()).unwrap();

    let mut copy = Copy::create(&dir, vec!["here".into()]).unwrap();
    for (name, bytes) in sent.lock().unwrap().iter() {
        assert!(copy.take(name, bytes).unwrap(), "{name}");
        for foreign in ["weather.arrows", "../weather.arrows", "/weather"] {
            assert!(!copy.take(foreign, bytes).unwrap(), "{foreign}");
        }
    }
    copy.finish().unwrap();
    assert_eq!(cookies(&dir), [1, 2]);
    assert_eq!(Capture::open(&dir).unwrap().meta().command_line, ["here"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1 + Table::ALL.len());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_in_use_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("notes.txt"), "mine").unwrap();
    let error = CaptureWriter::create(temp.path(), &meta()).unwrap_err();
    assert!(matches!(error, WriteError::NotEmpty(_)));
    assert!(!error.is_disk_full());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

/// On a real file system that is full; needs the right to mount one.
#[test]
fn a_full_disk_keeps_what_was_written_and_says_how_much() {
    let temp = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k", "groundtruth-test"])
        .arg(temp.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    let mut kept = 0;
    let error = loop {
        if let Err(error) = writer
            .connections(&(0..100).map(connection).collect::<Vec<_>>())
            .and_then(|()| writer.flush())
        {
            break error;
        }
        kept += 100;
    };
    let found = cookies(&dir).len();
    let table = Capture::open(&dir).unwrap().table(Table::Connections).unwrap();
    let size = fs::metadata(table.path()).unwrap().len();
    drop(writer);
    // What the test made it also takes away; `umount -l`, since the assertions come after.
    let unmounted =
        std::process::Command::new("umount").arg("-l").arg(temp.path()).status().unwrap();
    assert!(unmounted.success());

    assert!(kept > 0);
    assert_eq!(found, kept);
    assert_eq!(table.truncated_at(), Some(size));
    assert!(error.is_disk_full());
    let text = error.to_string();
    assert!(text.contains("connections.arrows: No space left on device"), "{text}");
    assert!(text.contains(&format!("the {kept} rows written before are kept, 100 are lost")));
}

#[test]
fn a_capture_that_is_being_written_can_be_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    let loss = |count| LossRow { from_mono_ns: 1, to_mono_ns: 2, reason: "ring".into(), count };
    writer.loss(&[loss(45)]).unwrap();
    writer.flush().unwrap();
    // Half of a message that is on its way.
    let mut file = OpenOptions::new().append(true).open(dir.join("loss.arrows")).unwrap();
    file.write_all(&[0xff, 0xff, 0xff, 0xff, 0x40]).unwrap();
    assert_eq!(rows(&dir, Table::Loss).len(), 1);
    let error = Capture::open(&temp.path().join("capture/loss.arrows")).unwrap_err();
    assert!(matches!(error, ReadError::NoMeta(_)));
}

fn losses(dir: &Path) -> usize {
    rows(dir, Table::Loss).iter().map(RecordBatch::num_rows).sum()
}

fn loss(count: u64) -> LossRow {
    LossRow { from_mono_ns: 1, to_mono_ns: 2, reason: "ring".into(), count }
}

#[test]
fn after_a_break_it_goes_on_behind_the_last_whole_message() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    writer.connections(&(0..5).map(connection).collect::<Vec<_>>()).unwrap();
    writer.flush().unwrap();
    // In memory when it breaks; then half a message, which could not be taken back.
    writer.connections(&(5..8).map(connection).collect::<Vec<_>>()).unwrap();
    assert_eq!(writer.suspend(), 3);
    let path = dir.join("connections.arrows");
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0xff; 7]).unwrap();

    assert_eq!(writer.resume().unwrap(), 0);
    writer.connections(&(8..10).map(connection).collect::<Vec<_>>()).unwrap();
    writer.finish(&meta()).unwrap();
    assert_eq!(cookies(&dir), [1, 2, 3, 4, 5, 9, 10]);
    let table = Capture::open(&dir).unwrap().table(Table::Connections).unwrap();
    assert_eq!(table.truncated_at(), None);
}

#[test]
fn what_the_file_system_has_lost_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    for part in [0..5, 5..8] {
        writer.connections(&part.map(connection).collect::<Vec<_>>()).unwrap();
        writer.loss(&[loss(1)]).unwrap();
        writer.flush().unwrap();
    }
    writer.suspend();
    let cut = |name: &str, bytes: u64| {
        let file = OpenOptions::new().write(true).open(dir.join(name)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(bytes.min(length - 1)).unwrap();
    };
    cut("connections.arrows", u64::MAX);
    // Not even its header is whole.
    cut("loss.arrows", 10);
    assert_eq!(writer.resume().unwrap(), 3 + 2);
    writer.loss(&[loss(5)]).unwrap();
    writer.finish(&meta()).unwrap();
    assert_eq!(cookies(&dir), [1, 2, 3, 4, 5]);
    assert_eq!(losses(&dir), 1);
}

#[test]
fn a_removed_capture_is_noticed_and_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    writer.connections(&(0..5).map(connection).collect::<Vec<_>>()).unwrap();
    writer.flush().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    writer.connections(&[connection(5)]).unwrap();
    let error = writer.flush().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} was removed while it was being written, with the 5 rows in it",
            dir.join("connections.arrows").display()
        )
    );
    assert_eq!(writer.suspend(), 1);
    assert_eq!(writer.resume().unwrap(), 5);
    writer.connections(&[connection(6)]).unwrap();
    writer.finish(&meta()).unwrap();
    assert_eq!(cookies(&dir), [7]);
}

#[test]
fn nobody_elses_file_is_written_to() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    writer.suspend();
    // Kept aside, so that its inode is not given to the next.
    fs::rename(&dir, temp.path().join("aside")).unwrap();
    CaptureWriter::create(&dir, &meta()).unwrap().finish(&meta()).unwrap();
    let theirs = fs::read(dir.join("connections.arrows")).unwrap();
    assert!(matches!(writer.resume().unwrap_err(), WriteError::Replaced(_)));
    assert_eq!(fs::read(dir.join("connections.arrows")).unwrap(), theirs);
}
