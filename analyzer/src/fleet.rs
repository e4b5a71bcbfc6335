//! Captures of many hosts in one directory, as Parquet that other engines read as it is:
//! `<table>/host=<host>/date=<UTC day>/<start>-<boot>.parquet`.
//!
//! Beside the tables of the capture, `connections` and `counts` have the container's name, and the table
//! `samples` has what each health sample showed. Every file carries the capture's `meta.json`, so that
//! a fleet can be read back capture by capture.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use capture::Capture;
use capture::meta::Meta;
use capture::schema::Table;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::clock::utc;
use crate::error::InputError;
use crate::input::recording::Recording;
use crate::report::model::ServerReport;

/// Under which key a file carries its capture's metadata.
pub(crate) const META_KEY: &str = "groundtruth.meta";
pub(crate) const SAMPLES: &str = "samples";

/// Where one capture's files lie in a fleet's directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    fleet: PathBuf,
    /// `host=…/date=…/….parquet`
    below: PathBuf,
    /// `meta.json`, in one line.
    meta: String,
}

impl Place {
    pub(crate) fn new(fleet: &Path, meta: &Meta) -> anyhow::Result<Self> {
        let second = meta.started_unix_ns.div_euclid(1_000_000_000);
        let day = utc(meta.started_unix_ns);
        let day = day.split([' ', 'T']).next().unwrap_or_default();
        let boot: String =
            meta.boot_id.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let below = [
            format!("host={}", escaped(&meta.host)),
            format!("date={day}"),
            format!("{second}-{boot}.parquet"),
        ];
        Ok(Self {
            fleet: fleet.to_path_buf(),
            below: below.iter().collect(),
            meta: serde_json::to_string(meta)?,
        })
    }

    pub(crate) fn file(&self, table: &str) -> PathBuf {
        self.fleet.join(table).join(&self.below)
    }

    /// Writes every table of a capture; returns how many rows.
    pub(crate) fn write_capture(
        &self,
        capture: &Capture,
        recording: &Recording,
    ) -> anyhow::Result<u64> {
        let mut rows = 0;
        for table in Table::ALL {
            let batches = capture.batches(table).map_err(InputError::from)?;
            let batches = batches.map(|batch| Ok(batch.map_err(InputError::from)?));
            let schema = table.schema();
            let cgroup = schema.index_of("cgroup_id").ok();
            rows += match cgroup.filter(|_| table != Table::Containers) {
                Some(cgroup) => {
                    let named = with_container(&schema);
                    let name = |batch: anyhow::Result<RecordBatch>| {
                        name_containers(&batch?, cgroup, &named, recording)
                    };
                    self.write(table.name(), &named, batches.map(name))?
                }
                None => self.write(table.name(), &nullable(&schema), batches)?,
            };
        }
        Ok(rows)
    }

    /// Writes what each health sample showed; returns how many did.
    pub(crate) fn write_samples(
        &self,
        servers: &[ServerReport],
        recording: &Recording,
    ) -> anyhow::Result<u64> {
        let columns = ["at_unix_ns", "reported", "kernel_low", "kernel_high", "phantoms"];
        let mut fields =
            ["container", "url"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec();
        let numbers = columns.into_iter().chain(["reverse_phantoms"]);
        fields.extend(numbers.map(|name| Field::new(name, DataType::Int64, true)));
        let schema = Arc::new(Schema::new(fields));
        let batches = servers.iter().map(|server| {
            let container = server.population.container_names(recording).join(", ");
            let times = server.series.len();
            let text = |word: &str| -> ArrayRef {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(word, times)))
            };
            let number = |of: fn(&crate::report::model::Point) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(server.series.iter().map(of)))
            };
            let arrays = vec![
                text(&container),
                text(&server.url),
                number(|point| point.at_unix_ns),
                number(|point| point.reported),
                number(|point| point.kernel_low),
                number(|point| point.kernel_high),
                number(|point| point.phantoms),
                number(|point| point.reverse_phantoms),
            ];
            Ok(RecordBatch::try_new(Arc::clone(&schema), arrays)?)
        });
        self.write(SAMPLES, &schema, batches)
    }

    /// The whole table or nothing.
    fn write(
        &self,
        table: &str,
        schema: &SchemaRef,
        batches: impl Iterator<Item = anyhow::Result<RecordBatch>>,
    ) -> anyhow::Result<u64> {
        let path = self.file(table);
        let failed = |error: io::Error| InputError::Write { path: path.clone(), error };
        fs::create_dir_all(path.parent().unwrap_or(&self.fleet)).map_err(failed)?;
        // Engines pass over names that begin so.
        let half = path.with_file_name(format!(".{}.new", std::process::id()));
        let file = File::create(&half).map_err(failed)?;
        let properties = properties(schema, &self.meta)?;
        let mut writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?;
        let mut rows = 0;
        for batch in batches {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            // Only the file can fail here: what is written has the writer's own schema.
            let batch = RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec())?;
            writer.write(&batch).map_err(|error| failed(error.into()))?;
        }
        let file = writer.into_inner().map_err(|error| failed(error.into()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&half, &path).map_err(failed)?;
        Ok(rows)
    }
}

/// Columns whose values grow little from row to row, beside all times.
const GROWING: [&str; 3] = ["cookie", "local_port", "remote_port"];
/// Columns that rarely repeat a value: a dictionary of theirs would be as long as they are.
const SCATTERED: [&str; 2] = ["leg_id", "remote_address"];

/// What every engine reads: `BYTE_STREAM_SPLIT` would be smaller by some bytes, but not all know it for
/// whole numbers.
fn properties(schema: &SchemaRef, meta: &str) -> anyhow::Result<WriterProperties> {
    let meta = KeyValue::new(META_KEY.to_owned(), meta.to_owned());
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_key_value_metadata(Some(vec![meta]));
    for field in schema.fields() {
        let name = field.name().as_str();
        let column = ColumnPath::from(name);
        if name.ends_with("_ns") || GROWING.contains(&name) {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        } else if SCATTERED.contains(&name) {
            properties = properties.set_column_dictionary_enabled(column, false);
        }
    }
    Ok(properties.build())
}

/// Columns that an older capture lacks are null, whatever this version's are.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn with_container(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = nullable(schema).fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("container", DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

fn name_containers(
    batch: &RecordBatch,
    cgroup: usize,
    schema: &SchemaRef,
    recording: &Recording,
) -> anyhow::Result<RecordBatch> {
    let cgroups = batch.column(cgroup).as_primitive::<UInt64Type>();
    let names: StringArray =
        cgroups.iter().map(|id| id.map(|id| recording.container_name(id))).collect();
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(names));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A value of a partition: what could be taken for a part of the path is written as `%XX`.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    if text.is_empty() { "unknown".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_host_is_one_part_of_a_path() {
        assert_eq!(escaped("web-1.example.org"), "web-1.example.org");
        assert_eq!(escaped("../a=b c"), "..%2Fa%3Db%20c");
        assert_eq!(escaped(""), "unknown");
    }
}
