//! A fleet's directory read back, capture by capture (see [`crate::fleet`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use capture::ReadError;
use capture::meta::Meta;
use capture::reader::conform;
use capture::schema::{Column, Table};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use crate::error::InputError;
use crate::fleet::META_KEY;
#[cfg(feature = "cloud")]
use crate::input::bucket::Bucket;
use crate::input::shared_file::SharedFile;

/// Where a fleet's files lie.
#[derive(Debug)]
enum Files {
    Directory(PathBuf),
    #[cfg(feature = "cloud")]
    Bucket(Bucket),
}

impl Files {
    /// Of a directory that is no fleet's, `None`.
    fn open(fleet: &Path) -> Result<Option<Self>, InputError> {
        if let Some(url) = bucket_url(fleet) {
            #[cfg(feature = "cloud")]
            return Bucket::open(url).map(|bucket| Some(Self::Bucket(bucket)));
            #[cfg(not(feature = "cloud"))]
            return Err(InputError::NoCloud(url.to_owned()));
        }
        let is_fleet = fleet.join(Table::Connections.name()).is_dir();
        Ok(is_fleet.then(|| Self::Directory(fleet.to_path_buf())))
    }

    /// `host=…/date=…/….parquet` of every capture, in order of host and time.
    fn captures(&self) -> Result<Vec<PathBuf>, InputError> {
        match self {
            Self::Directory(fleet) => listed(&fleet.join(Table::Connections.name())),
            #[cfg(feature = "cloud")]
            Self::Bucket(bucket) => bucket.captures(Table::Connections.name()),
        }
    }

    /// As the user named it.
    fn fleet(&self) -> &Path {
        match self {
            Self::Directory(fleet) => fleet,
            #[cfg(feature = "cloud")]
            Self::Bucket(bucket) => Path::new(bucket.url()),
        }
    }

    fn path(&self, table: Table, below: &Path) -> PathBuf {
        self.fleet().join(table.name()).join(below)
    }

    /// `None` of a table that a capture does not have.
    fn file(&self, table: Table, below: &Path) -> Result<Option<SharedFile>, InputError> {
        let file = match self {
            Self::Directory(_) => {
                let path = self.path(table, below);
                match capture::reader::open(&path) {
                    Ok(file) => Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(InputError::Read { path, error }),
                }
            }
            #[cfg(feature = "cloud")]
            Self::Bucket(bucket) => bucket.file(table.name(), below)?,
        };
        Ok(file.map(SharedFile::new))
    }
}

/// One capture of a fleet.
#[derive(Debug)]
pub(crate) struct FleetCapture {
    files: Arc<Files>,
    /// `host=…/date=…/….parquet`
    below: PathBuf,
    /// Read more than once, and brought here once.
    connections: SharedFile,
    pub(crate) meta: Meta,
}

/// What names a place in an object store, and no directory.
pub(crate) fn bucket_url(fleet: &Path) -> Option<&str> {
    fleet.to_str().filter(|text| text.starts_with("s3://"))
}

/// Every capture of a fleet, in order of host and time, each opened when it comes up; `None` where it
/// is a directory that is no fleet's.
pub(crate) fn captures(
    fleet: &Path,
) -> Result<Option<impl Iterator<Item = Result<FleetCapture, InputError>> + use<>>, InputError> {
    let Some(files) = Files::open(fleet)?.map(Arc::new) else { return Ok(None) };
    let captures = files.captures()?;
    Ok(Some(captures.into_iter().map(move |below| FleetCapture::open(&files, below))))
}

/// In the directory of one table.
fn listed(connections: &Path) -> Result<Vec<PathBuf>, InputError> {
    let mut captures = Vec::new();
    for host in parts(connections, "host=")? {
        for date in parts(&host, "date=")? {
            let mut files = entries(&date)?;
            files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
            let below = |file: PathBuf| file.strip_prefix(connections).map(Path::to_path_buf).ok();
            captures.extend(files.into_iter().filter_map(below));
        }
    }
    Ok(captures)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, InputError> {
    let failed = |error| InputError::Read { path: dir.to_path_buf(), error };
    let entries = fs::read_dir(dir).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Directories of one level of partitions.
fn parts(dir: &Path, key: &str) -> Result<Vec<PathBuf>, InputError> {
    let mut found = entries(dir)?;
    found.retain(|path| {
        path.is_dir()
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(key))
    });
    Ok(found)
}

fn builder(
    file: SharedFile,
    path: &Path,
) -> Result<ParquetRecordBatchReaderBuilder<SharedFile>, InputError> {
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, error))
}

fn damaged(path: &Path, error: ParquetError) -> InputError {
    InputError::Capture(ReadError::Batch { path: path.to_path_buf(), error: error.into() })
}

fn meta(file: SharedFile, path: &Path) -> Result<Meta, InputError> {
    let builder = builder(file, path)?;
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let text = pairs
        .into_iter()
        .flatten()
        .find(|pair| pair.key == META_KEY)
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| InputError::NotExported(path.to_path_buf()))?;
    serde_json::from_str(text)
        .map_err(|error| InputError::Capture(ReadError::Meta { path: path.to_path_buf(), error }))
}

impl FleetCapture {
    fn open(files: &Arc<Files>, below: PathBuf) -> Result<Self, InputError> {
        let path = files.path(Table::Connections, &below);
        let gone =
            || InputError::Read { path: path.clone(), error: io::ErrorKind::NotFound.into() };
        let connections = files.file(Table::Connections, &below)?.ok_or_else(gone)?;
        let meta = meta(connections.clone(), &path)?;
        Ok(Self { files: Arc::clone(files), below, connections, meta })
    }

    pub(crate) fn name(&self) -> String {
        self.files.fleet().join(&self.below).with_extension("").display().to_string()
    }

    fn file(&self, table: Table) -> Result<Option<SharedFile>, InputError> {
        match table {
            Table::Connections => Ok(Some(self.connections.clone())),
            _ => self.files.file(table, &self.below),
        }
    }

    /// Every row in these columns and their order, missing ones null; none of a table that is not
    /// there.
    pub(crate) fn batches(
        &self,
        table: Table,
        columns: Vec<Column>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>>, InputError> {
        let path = self.files.path(table, &self.below);
        let reader = match self.file(table)? {
            None => None,
            Some(file) => {
                let builder = builder(file, &path)?.with_batch_size(capture::writer::BATCH_ROWS);
                let mask = ProjectionMask::columns(
                    builder.parquet_schema(),
                    columns.iter().map(|column| column.name),
                );
                Some(builder.with_projection(mask).build().map_err(|e| damaged(&path, e))?)
            }
        };
        Ok(reader.into_iter().flatten().map(move |batch| {
            batch
                .and_then(|batch| conform(&batch, &columns))
                .map_err(|error| ReadError::Batch { path: path.clone(), error })
        }))
    }
}
