//! A fleet's directory read back, capture by capture (see [`crate::fleet`]).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use capture::ReadError;
use capture::meta::Meta;
use capture::reader::conform;
use capture::schema::{Column, Table};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use crate::error::InputError;
use crate::fleet::META_KEY;

/// One capture of a fleet.
#[derive(Debug)]
pub(crate) struct FleetCapture {
    fleet: PathBuf,
    /// `host=…/date=…/….parquet`
    below: PathBuf,
    pub(crate) meta: Meta,
}

/// Every capture below a fleet's directory, in order of host and time; `None` where it is no such
/// directory.
pub(crate) fn captures(fleet: &Path) -> Result<Option<Vec<FleetCapture>>, InputError> {
    let connections = fleet.join(Table::Connections.name());
    if !connections.is_dir() {
        return Ok(None);
    }
    let mut captures = Vec::new();
    for host in parts(&connections, "host=")? {
        for date in parts(&host, "date=")? {
            for file in entries(&date)? {
                if file.extension().is_none_or(|extension| extension != "parquet") {
                    continue;
                }
                let below = file.strip_prefix(&connections).unwrap_or(&file).to_path_buf();
                let meta = meta(&file)?;
                captures.push(FleetCapture { fleet: fleet.to_path_buf(), below, meta });
            }
        }
    }
    Ok(Some(captures))
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

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, InputError> {
    let file =
        File::open(path).map_err(|error| InputError::Read { path: path.to_path_buf(), error })?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, error))
}

fn damaged(path: &Path, error: ParquetError) -> InputError {
    InputError::Capture(ReadError::Batch { path: path.to_path_buf(), error: error.into() })
}

fn meta(path: &Path) -> Result<Meta, InputError> {
    let builder = builder(path)?;
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
    pub(crate) fn name(&self) -> String {
        self.fleet.join(&self.below).with_extension("").display().to_string()
    }

    /// Every row in these columns and their order, missing ones null; none of a table that is not
    /// there.
    pub(crate) fn batches(
        &self,
        table: Table,
        columns: Vec<Column>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>>, InputError> {
        let path = self.fleet.join(table.name()).join(&self.below);
        let reader = match path.exists() {
            false => None,
            true => {
                let builder = builder(&path)?.with_batch_size(capture::writer::BATCH_ROWS);
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

    /// A table as an Arrow IPC stream, in memory.
    pub(crate) fn stream(&self, table: Table) -> Result<Vec<u8>, InputError> {
        let path = self.fleet.join(table.name()).join(&self.below);
        let failed = |error| InputError::Capture(ReadError::Batch { path: path.clone(), error });
        let mut writer = None;
        for batch in self.batches(table, table.columns().to_vec())? {
            let batch = batch?;
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer
                    .insert(StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(failed)?),
            };
            writer.write(&batch).map_err(failed)?;
        }
        match writer {
            Some(writer) => writer.into_inner().map_err(failed),
            None => StreamWriter::try_new(Vec::new(), &table.schema())
                .and_then(StreamWriter::into_inner)
                .map_err(failed),
        }
    }
}
