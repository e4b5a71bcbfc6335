//! Writes a capture so that a `kill -9` or a full disk costs only what was not flushed: every flush
//! appends one whole Arrow IPC message per table, in a single write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::SchemaRef;

use crate::error::WriteError;
use crate::meta::{META_FILE, Meta};
use crate::reader::TableFile;
use crate::schema::{
    ClockRow, ConnectionRow, ContainerRow, CountRow, HealthRow, KernelRow, ListedRow, ListingRow,
    LossRow, MINOR, MetricRow, Row, Table,
};

/// Rows that are held in memory per table before they are written without being asked to.
pub const BATCH_ROWS: usize = 8192;

/// Where a capture goes that is not written to a directory of this host: called with a file's name,
/// and with whole messages to append to it (for [`META_FILE`], with what replaces it).
pub type Send = dyn Fn(&str, &[u8]) -> io::Result<()> + std::marker::Send + Sync;

/// An open capture. Dropping it loses the rows since the last flush, and leaves a capture that reads
/// as one that was cut off.
#[derive(Debug)]
pub struct CaptureWriter {
    place: Place,
    /// As it was written at the beginning.
    meta: Meta,
    tables: Tables,
}

#[derive(Debug)]
struct Tables {
    connections: TableWriter<ConnectionRow>,
    counts: TableWriter<CountRow>,
    health: TableWriter<HealthRow>,
    kernel: TableWriter<KernelRow>,
    loss: TableWriter<LossRow>,
    clock: TableWriter<ClockRow>,
    containers: TableWriter<ContainerRow>,
    metrics: TableWriter<MetricRow>,
    listings: TableWriter<ListingRow>,
    listed: TableWriter<ListedRow>,
}

impl Tables {
    fn create(place: &Place) -> Result<Self, WriteError> {
        Ok(Self {
            connections: TableWriter::create(place)?,
            counts: TableWriter::create(place)?,
            health: TableWriter::create(place)?,
            kernel: TableWriter::create(place)?,
            loss: TableWriter::create(place)?,
            clock: TableWriter::create(place)?,
            containers: TableWriter::create(place)?,
            metrics: TableWriter::create(place)?,
            listings: TableWriter::create(place)?,
            listed: TableWriter::create(place)?,
        })
    }

    fn all(&mut self) -> [&mut dyn Written; 10] {
        [
            &mut self.connections,
            &mut self.counts,
            &mut self.health,
            &mut self.kernel,
            &mut self.loss,
            &mut self.clock,
            &mut self.containers,
            &mut self.metrics,
            &mut self.listings,
            &mut self.listed,
        ]
    }
}

impl CaptureWriter {
    /// Makes the directory (and those above it), its `meta.json` and an empty file per table.
    ///
    /// # Errors
    /// Refuses a directory that has anything in it, so that no two recordings mix.
    pub fn create(dir: &Path, meta: &Meta) -> Result<Self, WriteError> {
        empty_dir(dir)?;
        Self::begin(Place::Dir(dir.to_path_buf()), meta)
    }

    /// Hands everything to `send`, which [`crate::copy::Copy`] can make a directory of elsewhere.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn stream(send: Arc<Send>, meta: &Meta) -> Result<Self, WriteError> {
        Self::begin(Place::Elsewhere(send), meta)
    }

    fn begin(place: Place, meta: &Meta) -> Result<Self, WriteError> {
        let tables = Tables::create(&place)?;
        let writer = Self { place, meta: meta.clone(), tables };
        writer.place.write_meta(meta)?;
        Ok(writer)
    }

    pub fn connections(&mut self, rows: &[ConnectionRow]) -> Result<(), WriteError> {
        self.tables.connections.append(rows)
    }

    pub fn counts(&mut self, rows: &[CountRow]) -> Result<(), WriteError> {
        self.tables.counts.append(rows)
    }

    pub fn health(&mut self, rows: &[HealthRow]) -> Result<(), WriteError> {
        self.tables.health.append(rows)
    }

    pub fn kernel(&mut self, rows: &[KernelRow]) -> Result<(), WriteError> {
        self.tables.kernel.append(rows)
    }

    pub fn loss(&mut self, rows: &[LossRow]) -> Result<(), WriteError> {
        self.tables.loss.append(rows)
    }

    pub fn clock(&mut self, rows: &[ClockRow]) -> Result<(), WriteError> {
        self.tables.clock.append(rows)
    }

    pub fn containers(&mut self, rows: &[ContainerRow]) -> Result<(), WriteError> {
        self.tables.containers.append(rows)
    }

    pub fn metrics(&mut self, rows: &[MetricRow]) -> Result<(), WriteError> {
        self.tables.metrics.append(rows)
    }

    pub fn listings(&mut self, rows: &[ListingRow]) -> Result<(), WriteError> {
        self.tables.listings.append(rows)
    }

    pub fn listed(&mut self, rows: &[ListedRow]) -> Result<(), WriteError> {
        self.tables.listed.append(rows)
    }

    /// Hands every buffered row to the operating system. Call it once a second: what is flushed
    /// survives the death of this process.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.tables.all().into_iter().try_for_each(Written::flush)
    }

    /// After an error: closes every file, so that its file system can be mended and mounted again, and
    /// drops the rows that are in memory. Returns how many those are.
    pub fn suspend(&mut self) -> u64 {
        self.tables.all().into_iter().map(Written::suspend).sum()
    }

    /// After [`CaptureWriter::suspend`]: goes on behind the last whole message of each file, and makes
    /// anew what was removed. Returns how many rows that were written are gone.
    ///
    /// # Errors
    /// What still can't be opened or written, and files that are not the ones written before.
    pub fn resume(&mut self) -> Result<u64, WriteError> {
        let Place::Dir(dir) = &self.place else { return Ok(0) };
        let failed = |error| WriteError::Create { path: dir.clone(), error };
        // Not below the mount point of a disk that is unmounted.
        let there = std::path::absolute(dir).map_err(failed)?;
        let there = there.ancestors().find(|path| path.exists()).unwrap_or(dir);
        let device = fs::metadata(there).map_err(failed)?.dev();
        if self.tables.connections.file.is_some_and(|(before, _)| before != device) {
            return Err(WriteError::Replaced(dir.clone()));
        }
        fs::create_dir_all(dir).map_err(failed)?;
        if !dir.join(META_FILE).exists() {
            write_meta(dir, &self.meta)?;
        }
        find_room(dir)?;
        self.tables.all().into_iter().map(|table| table.resume(&self.place)).sum()
    }

    /// Flushes, ends every table and writes the final `meta.json`; all of it is on disk when this
    /// returns.
    pub fn finish(mut self, meta: &Meta) -> Result<Summary, WriteError> {
        self.flush()?;
        let mut summary = Summary::default();
        for table in self.tables.all() {
            summary.add(table.finish()?);
        }
        self.place.write_meta(meta)?;
        Ok(summary)
    }
}

/// What a finished capture holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: Vec<(Table, u64)>,
    pub bytes: u64,
}

impl Summary {
    fn add(&mut self, (table, rows, bytes): (Table, u64, u64)) {
        self.rows.push((table, rows));
        self.bytes += bytes;
    }
}

/// Where the files are.
enum Place {
    Dir(PathBuf),
    Elsewhere(Arc<Send>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Dir(dir) => dir.fmt(f),
            Place::Elsewhere(_) => f.write_str("elsewhere"),
        }
    }
}

impl Place {
    fn write_meta(&self, meta: &Meta) -> Result<(), WriteError> {
        match self {
            Place::Dir(dir) => write_meta(dir, meta),
            Place::Elsewhere(send) => text_of(meta)
                .map_err(io::Error::from)
                .and_then(|text| send(META_FILE, &text))
                .map_err(|error| WriteError::Create { path: META_FILE.into(), error }),
        }
    }
}

/// Where one table's messages go.
enum Sink {
    File(File),
    Elsewhere(Arc<Send>),
    /// Between [`TableWriter::suspend`] and [`TableWriter::resume`].
    Closed,
}

/// What tells one file from another that has its name: device and inode.
type FileId = (u64, u64);

fn id_of(file: &File) -> io::Result<FileId> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// What is done to every table alike.
trait Written {
    fn flush(&mut self) -> Result<(), WriteError>;

    /// Closes the file; returns how many rows were in memory.
    fn suspend(&mut self) -> u64;

    /// Returns how many rows are no longer in the file.
    fn resume(&mut self, place: &Place) -> Result<u64, WriteError>;

    /// Returns how many rows and bytes were written.
    fn finish(&mut self) -> Result<(Table, u64, u64), WriteError>;
}

struct TableWriter<R: Row> {
    schema: SchemaRef,
    path: PathBuf,
    sink: Sink,
    /// `None` where it is not written to a file.
    file: Option<FileId>,
    columns: R::Columns,
    buffered_rows: usize,
    written_rows: u64,
    /// Length of the file up to the last whole message.
    written_bytes: u64,
    /// Encodes into memory, so that a message reaches the file whole or not at all.
    encoder: StreamWriter<Vec<u8>>,
}

impl<R: Row> std::fmt::Debug for TableWriter<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.path)
            .field("buffered_rows", &self.buffered_rows)
            .field("written_rows", &self.written_rows)
            .finish_non_exhaustive()
    }
}

impl<R: Row> TableWriter<R> {
    fn create(place: &Place) -> Result<Self, WriteError> {
        let (path, sink, id) = match place {
            Place::Dir(dir) => {
                let path = dir.join(R::TABLE.file_name());
                let (file, id) = File::create_new(&path)
                    .and_then(|file| id_of(&file).map(|id| (file, id)))
                    .map_err(|error| WriteError::Create { path: path.clone(), error })?;
                (path, Sink::File(file), Some(id))
            }
            Place::Elsewhere(send) => {
                (R::TABLE.file_name().into(), Sink::Elsewhere(Arc::clone(send)), None)
            }
        };
        // Batches of one second are small: padding to the default 64 bytes would double them.
        let schema = R::TABLE.schema();
        let encoder = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
            .and_then(|options| StreamWriter::try_new_with_options(Vec::new(), &schema, options))
            .map_err(|error| WriteError::Encode { path: path.clone(), error })?;
        let mut writer = Self {
            schema,
            path,
            sink,
            file: id,
            columns: R::Columns::default(),
            buffered_rows: 0,
            written_rows: 0,
            written_bytes: 0,
            encoder,
        };
        writer.write_out(0)?;
        Ok(writer)
    }

    fn append(&mut self, rows: &[R]) -> Result<(), WriteError> {
        for row in rows {
            row.append(&mut self.columns);
            self.buffered_rows += 1;
            if self.buffered_rows == BATCH_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn recreate(&mut self, place: &Place) -> Result<u64, WriteError> {
        let rows = self.written_rows;
        let anew = Self::create(place).inspect_err(|_| {
            // Half a header is nothing to go on behind.
            let _ = fs::remove_file(&self.path);
        })?;
        // The disk may have been unmounted a moment ago.
        if anew.file.map(|(device, _)| device) != self.file.map(|(device, _)| device) {
            let _ = fs::remove_file(&self.path);
            return Err(WriteError::Replaced(self.path.clone()));
        }
        *self = anew;
        Ok(rows)
    }

    /// Writes to a file without a name would succeed, and be lost.
    fn check_is_there(&self) -> Result<(), WriteError> {
        let Sink::File(file) = &self.sink else { return Ok(()) };
        let links = file.metadata().map_err(|error| self.failed(0, error))?.nlink();
        if links > 0 {
            return Ok(());
        }
        Err(WriteError::Removed { path: self.path.clone(), rows: self.written_rows })
    }

    /// Moves what the encoder made into the file.
    fn write_out(&mut self, rows: u64) -> Result<(), WriteError> {
        let message = self.encoder.get_mut();
        let result = match &mut self.sink {
            Sink::File(file) => file.write_all(message),
            Sink::Elsewhere(send) => send(&R::TABLE.file_name(), message),
            Sink::Closed => Err(io::Error::other("it is closed after an earlier error")),
        };
        let length = message.len() as u64;
        message.clear();
        if let Err(error) = result {
            // What reached the file of this message goes again: a file that ends with a whole message
            // needs no repair. If even that fails, the reader stops at the last whole one.
            if let Sink::File(file) = &self.sink {
                let _ = file.set_len(self.written_bytes);
            }
            return Err(self.failed(rows, error));
        }
        self.written_rows += rows;
        self.written_bytes += length;
        Ok(())
    }

    fn failed(&self, lost_rows: u64, error: io::Error) -> WriteError {
        WriteError::Write {
            path: self.path.clone(),
            kept_rows: self.written_rows,
            lost_rows,
            error,
        }
    }
}

impl<R: Row> Written for TableWriter<R> {
    fn flush(&mut self) -> Result<(), WriteError> {
        self.check_is_there()?;
        if self.buffered_rows == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.buffered_rows);
        let arrays = R::take(&mut self.columns);
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .and_then(|batch| self.encoder.write(&batch))
            .map_err(|error| WriteError::Encode { path: self.path.clone(), error })?;
        self.write_out(rows as u64)
    }

    fn suspend(&mut self) -> u64 {
        self.sink = Sink::Closed;
        self.columns = R::Columns::default();
        std::mem::take(&mut self.buffered_rows) as u64
    }

    fn resume(&mut self, place: &Place) -> Result<u64, WriteError> {
        let failed = |error| WriteError::Create { path: self.path.clone(), error };
        let file = match OpenOptions::new().append(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.recreate(place),
            file => file.map_err(failed)?,
        };
        if Some(id_of(&file).map_err(failed)?) != self.file {
            return Err(WriteError::Replaced(self.path.clone()));
        }
        let mut gone = 0;
        if file.metadata().map_err(failed)?.len() < self.written_bytes {
            // A file system that broke has what had reached its disk.
            let found = TableFile::open(self.path.clone(), R::TABLE, MINOR).ok();
            let Some((bytes, rows)) = found.and_then(|found| Some((found.whole()?, found.rows())))
            else {
                fs::remove_file(&self.path).map_err(failed)?;
                return self.recreate(place);
            };
            gone = self.written_rows - rows;
            (self.written_bytes, self.written_rows) = (bytes, rows);
        }
        // The half of a message that could not be taken back when its write failed.
        file.set_len(self.written_bytes).map_err(failed)?;
        self.sink = Sink::File(file);
        Ok(gone)
    }

    fn finish(&mut self) -> Result<(Table, u64, u64), WriteError> {
        self.encoder
            .finish()
            .map_err(|error| WriteError::Encode { path: self.path.clone(), error })?;
        self.write_out(0)?;
        if let Sink::File(file) = &self.sink {
            file.sync_all().map_err(|error| self.failed(0, error))?;
        }
        Ok((R::TABLE, self.written_rows, self.written_bytes))
    }
}

/// On a full disk a file may still grow by what is left of its last block, and no further.
fn find_room(dir: &Path) -> Result<(), WriteError> {
    let path = dir.join("room");
    let written = fs::write(&path, [0; 64 << 10]);
    let _ = fs::remove_file(&path);
    written.map_err(|error| WriteError::Create { path, error })
}

/// Makes the directory, and refuses one that has anything in it.
pub(crate) fn empty_dir(dir: &Path) -> Result<(), WriteError> {
    let failed = |error| WriteError::Create { path: dir.to_path_buf(), error };
    fs::create_dir_all(dir).map_err(failed)?;
    if fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(WriteError::NotEmpty(dir.to_path_buf()));
    }
    Ok(())
}

fn text_of(meta: &Meta) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(meta)?;
    text.push(b'\n');
    Ok(text)
}

/// Replaces `meta.json` in one step: a reader sees the old or the new one, never half of either.
pub(crate) fn write_meta(dir: &Path, meta: &Meta) -> Result<(), WriteError> {
    let path = dir.join(META_FILE);
    let half = dir.join("meta.json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&half)?;
        file.write_all(&text_of(meta)?)?;
        file.sync_all()?;
        fs::rename(&half, &path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&half);
        WriteError::Create { path: path.clone(), error }
    })
}
