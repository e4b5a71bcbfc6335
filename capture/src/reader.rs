//! Reads a capture, also one whose recorder was killed: each table up to its last whole message.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read, Take};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_ipc::{MessageHeader, convert, root_as_message};
use arrow_schema::{ArrowError, Schema};

pub use crate::compat::{MOST, conform};
use crate::meta::{META_FILE, Meta};
use crate::schema::{Column, MAJOR, Table};

/// Thousands of times what a recorder writes.
const LONGEST_META: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is not there: expected the directory that `probe record -o` wrote", .0.display())]
    Nowhere(PathBuf),
    #[error(
        "{} is no capture: expected the directory that `probe record -o` wrote, with a {META_FILE} in it{}",
        .0.display(), of_a_run(.0)
    )]
    NoMeta(PathBuf),
    #[error("{} is damaged: {error}", .path.display())]
    Meta { path: PathBuf, error: serde_json::Error },
    #[error(
        "{} was recorded with capture format {major}.{minor}, this program reads {MAJOR}.x: use the analyzer of the version that recorded it",
        .path.display()
    )]
    Version { path: PathBuf, major: u32, minor: u32 },
    #[error("{} is missing: expected one {} table in the capture", .path.display(), .table.name())]
    NoTable { path: PathBuf, table: Table },
    #[error(
        "{} is no {} table: expected an Arrow IPC stream, {found}",
        .path.display(), .table.name()
    )]
    NotArrow { path: PathBuf, table: Table, found: String },
    #[error("{}: column {column} is {found}, expected {expected}", .path.display())]
    ColumnType { path: PathBuf, column: String, found: String, expected: String },
    #[error("{}: {error}", .path.display())]
    Batch { path: PathBuf, error: ArrowError },
}

/// Where a run of the lab, which keeps its reports above the capture, has it.
fn of_a_run(dir: &Path) -> String {
    let capture = dir.join("capture");
    if capture.join(META_FILE).exists() {
        format!("; name the one in it, {}", capture.display())
    } else {
        String::new()
    }
}

/// An opened capture.
#[derive(Clone, Debug)]
pub struct Capture {
    dir: PathBuf,
    meta: Meta,
}

impl Capture {
    /// Reads `meta.json`. Tables are looked at when they are asked for.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let path = dir.join(META_FILE);
        let text = match read_meta(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => {
                return Err(ReadError::Nowhere(dir.to_path_buf()));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(ReadError::NoMeta(dir.to_path_buf()));
            }
            Err(error) => return Err(ReadError::Io { path, error }),
        };
        // The version is looked at before the rest, which another version may write differently.
        let version: Version = serde_json::from_slice(&text)
            .map_err(|error| ReadError::Meta { path: path.clone(), error })?;
        if version.schema_major != MAJOR {
            return Err(ReadError::Version {
                path: dir.to_path_buf(),
                major: version.schema_major,
                minor: version.schema_minor,
            });
        }
        let meta = serde_json::from_slice(&text)
            .map_err(|error| ReadError::Meta { path: path.clone(), error })?;
        Ok(Self { dir: dir.to_path_buf(), meta })
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Finds the end of the last whole message of a table and checks its columns' types.
    pub fn table(&self, table: Table) -> Result<TableFile, ReadError> {
        TableFile::open(self.dir.join(table.file_name()), table, self.meta.schema_minor)
    }

    /// Every row of a table, in the columns of this version: missing ones null, unknown ones left out.
    pub fn batches(
        &self,
        table: Table,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + use<>, ReadError> {
        self.table(table)?.batches(table.columns().to_vec())
    }
}

/// Opens a file of a capture. A capture comes from elsewhere, and a pipe or a device in it may never end.
///
/// # Errors
/// As open(2), or if it is none.
pub fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

fn read_meta(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.take(LONGEST_META + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_META {
        let why = format!("it is longer than {LONGEST_META} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

#[derive(serde::Deserialize)]
struct Version {
    schema_major: u32,
    schema_minor: u32,
}

/// One table's file, measured.
#[derive(Clone, Debug)]
pub struct TableFile {
    path: PathBuf,
    table: Table,
    /// Bytes of whole messages from the start.
    length: u64,
    rows: u64,
    truncated_at: Option<u64>,
    /// Columns in the file, `None` if it was cut off before its schema was whole, or if the capture is
    /// older than the table.
    schema: Option<Schema>,
}

impl TableFile {
    pub(crate) fn open(path: PathBuf, table: Table, minor: u32) -> Result<Self, ReadError> {
        let mut found = Self { path, table, length: 0, rows: 0, truncated_at: None, schema: None };
        let file = match open(&found.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if minor < table.since_minor() {
                    Ok(found)
                } else {
                    Err(ReadError::NoTable { path: found.path, table })
                };
            }
            Err(error) => return Err(ReadError::Io { path: found.path, error }),
        };
        found.walk(file)?;
        found.check_types()?;
        Ok(found)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of its whole messages; `None` if not even the schema is whole.
    pub(crate) fn whole(&self) -> Option<u64> {
        self.schema.as_ref().map(|_| self.length)
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Where the last whole message ends, if the file goes on after it or lacks its end marker:
    /// the recorder was killed, or is still at work.
    #[must_use]
    pub fn truncated_at(&self) -> Option<u64> {
        self.truncated_at
    }

    /// Columns of this version that the file lacks: null in every row.
    #[must_use]
    pub fn missing_columns(&self) -> Vec<Column> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let missing = |column: &&Column| schema.column_with_name(column.name).is_none();
        self.table.columns().iter().filter(missing).copied().collect()
    }

    /// Every row, in these columns and their order: missing ones null. Others are not decoded.
    pub fn batches(
        &self,
        columns: Vec<Column>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + use<>, ReadError> {
        let path = self.path.clone();
        let failed = move |error| ReadError::Batch { path: path.clone(), error };
        let chosen = self.schema.as_ref().map(|schema| {
            let is_wanted = |name: &str| columns.iter().any(|column| column.name == name);
            let fields = schema.fields().iter().enumerate();
            fields.filter(|(_, field)| is_wanted(field.name())).map(|(index, _)| index).collect()
        });
        let input = BufReader::with_capacity(1 << 20, self.stream()?);
        let reader = StreamReader::try_new(input, chosen).map_err(&failed)?;
        let mut reader = Some(reader);
        Ok(std::iter::from_fn(move || {
            // Arrow's decoder asserts where a damaged batch contradicts itself; whoever made the
            // capture is not to end us by it.
            let decoded = catch_unwind(AssertUnwindSafe(|| reader.as_mut()?.next()));
            let batch = decoded.unwrap_or_else(|_| {
                reader = None;
                let why = "the file is damaged: its rows contradict themselves";
                Some(Err(ArrowError::IpcError(why.to_owned())))
            })?;
            Some(batch.and_then(|batch| conform(&batch, &columns)).map_err(&failed))
        }))
    }

    /// An Arrow IPC stream of the whole messages; without rows where not even the schema was whole.
    fn stream(&self) -> Result<TableStream, ReadError> {
        let io_failed = |error| ReadError::Io { path: self.path.clone(), error };
        if self.schema.is_none() {
            let empty = StreamWriter::try_new(Vec::new(), &self.table.schema())
                .and_then(StreamWriter::into_inner)
                .map_err(|error| ReadError::Batch { path: self.path.clone(), error })?;
            return Ok(TableStream::Empty(Cursor::new(empty)));
        }
        let file = File::open(&self.path).map_err(io_failed)?;
        Ok(TableStream::File(file.take(self.length)))
    }

    /// Steps from message to message: continuation marker, length of the metadata, metadata (a
    /// flatbuffer that says how long the body is), body.
    fn walk(&mut self, file: File) -> Result<(), ReadError> {
        const CONTINUATION: [u8; 4] = [0xff; 4];
        let io_failed = |error| ReadError::Io { path: self.path.clone(), error };
        let size = file.metadata().map_err(io_failed)?.len();
        let mut input = BufReader::new(file);
        let mut metadata = Vec::new();
        loop {
            let left = size - self.length;
            let mut prefix = [0; 8];
            let there = left.min(8) as usize;
            input.read_exact(&mut prefix[..there]).map_err(io_failed)?;
            let marker = there.min(4);
            if prefix[..marker] != CONTINUATION[..marker] {
                return self.damaged("found no message there");
            }
            if there < 8 {
                self.truncated_at = Some(self.length);
                return Ok(());
            }
            let metadata_length =
                u64::from(u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]));
            if metadata_length == 0 {
                self.length += 8;
                return Ok(());
            }
            if metadata_length > left - 8 {
                self.truncated_at = Some(self.length);
                return Ok(());
            }
            metadata.resize(metadata_length as usize, 0);
            input.read_exact(&mut metadata).map_err(io_failed)?;
            let Ok(message) = root_as_message(&metadata) else {
                return self.damaged("found a message that cannot be read");
            };
            let body_length = message.bodyLength();
            if body_length < 0 {
                return self.damaged("found a message of negative length");
            }
            if body_length.unsigned_abs() > left - 8 - metadata_length {
                self.truncated_at = Some(self.length);
                return Ok(());
            }
            match message.header_type() {
                MessageHeader::Schema if self.schema.is_none() => {
                    let schema = message.header_as_schema().map(convert::try_fb_to_schema);
                    let Some(Ok(schema)) = schema else {
                        return self.damaged("found a schema that cannot be read");
                    };
                    self.schema = Some(schema);
                }
                MessageHeader::RecordBatch if self.schema.is_some() => {
                    let Some(batch) = message.header_as_record_batch() else {
                        return self.damaged("found rows that cannot be read");
                    };
                    // Arrow's own reader takes the places of the columns on trust, also that each is where
                    // numbers can be.
                    let lies_within = |offset: i64, length: i64| {
                        offset >= 0
                            && offset % 8 == 0
                            && length >= 0
                            && offset.checked_add(length).is_some_and(|end| end <= body_length)
                    };
                    let mut buffers = batch.buffers().into_iter().flatten();
                    // No table has a row of less than a bit.
                    if !(0..=body_length.saturating_mul(8)).contains(&batch.length())
                        || !buffers.all(|buffer| lies_within(buffer.offset(), buffer.length()))
                    {
                        return self.damaged("found rows that lie outside their message");
                    }
                    self.rows += batch.length().unsigned_abs();
                }
                _ => return self.damaged("found a message that a capture does not have"),
            }
            input.seek_relative(body_length).map_err(io_failed)?;
            self.length += 8 + metadata_length + body_length.unsigned_abs();
        }
    }

    /// Garbage after whole messages cuts the file off there (a crash of the host can leave it);
    /// garbage from the start is no table at all.
    fn damaged(&mut self, found: &str) -> Result<(), ReadError> {
        if self.schema.is_none() {
            return Err(ReadError::NotArrow {
                path: self.path.clone(),
                table: self.table,
                found: found.to_owned(),
            });
        }
        self.truncated_at = Some(self.length);
        Ok(())
    }

    fn check_types(&self) -> Result<(), ReadError> {
        let Some(schema) = &self.schema else { return Ok(()) };
        if self.missing_columns().len() == self.table.columns().len() {
            return Err(ReadError::NotArrow {
                path: self.path.clone(),
                table: self.table,
                found: "found the columns of something else".to_owned(),
            });
        }
        for column in self.table.columns() {
            let expected = column.kind.data_type();
            if let Some((_, field)) = schema.column_with_name(column.name)
                && *field.data_type() != expected
            {
                return Err(ReadError::ColumnType {
                    path: self.path.clone(),
                    column: column.name.to_owned(),
                    found: field.data_type().to_string(),
                    expected: expected.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// The bytes of a table, ending at its last whole message.
#[derive(Debug)]
enum TableStream {
    File(Take<File>),
    Empty(Cursor<Vec<u8>>),
}

impl Read for TableStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            TableStream::File(file) => file.read(buffer),
            TableStream::Empty(bytes) => bytes.read(buffer),
        }
    }
}
