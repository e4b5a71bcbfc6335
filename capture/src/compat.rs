//! Rows of older minor versions in the columns of this one.

use arrow_array::types::{Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch, cast::AsArray, new_null_array};
use arrow_schema::{ArrowError, Field, Schema};
use std::sync::Arc;

use crate::schema::{Column, Kind};

/// Of the monotonic clock: 18 years. Sums of some such times are still numbers.
pub(crate) const LATEST_NS: u64 = 1 << 59;
/// Of Unix time: the year 2116.
pub(crate) const LATEST_UNIX_NS: u64 = 1 << 62;
/// Of connections, or anything else that is counted at a moment.
pub const MOST: u64 = 1 << 40;
/// Of anything that is counted since a start.
const MOST_EVER: u64 = 1 << 50;
/// Numbers that somebody else chose, and names that look like numbers.
const ANY: [&str; 5] = ["reported", "cookie", "cgroup_id", "task_cgroup_id", "leg_id"];

/// Puts a batch's columns in this order; what the file lacks becomes null, what this
/// version does not know is left out. A column that was added later is nullable here whatever the
/// current schema says, since older rows have no value for it.
///
/// # Errors
/// If a column that may not be null here has nulls, or one has a number that no host reaches: whoever
/// made the capture is not to make sums overflow.
pub fn conform(batch: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let data_type = column.kind.data_type();
        let found = batch.column_by_name(column.name);
        fields.push(Field::new(column.name, data_type.clone(), column.nullable || found.is_none()));
        arrays.push(match found {
            Some(array) => {
                check(column, array)?;
                array.clone()
            }
            None => new_null_array(&data_type, batch.num_rows()),
        });
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

fn check(column: &Column, array: &dyn Array) -> Result<(), ArrowError> {
    let most = match column.name {
        name if ANY.contains(&name) => return Ok(()),
        "unix_ns" => LATEST_UNIX_NS,
        name if name.ends_with("_ns") => LATEST_NS,
        _ if column.kind == Kind::I64 => MOST,
        _ => MOST_EVER,
    };
    let numbers: Option<u64> = match column.kind {
        Kind::I64 => array
            .as_primitive_opt::<Int64Type>()
            .and_then(|numbers| numbers.iter().flatten().map(i64::unsigned_abs).max()),
        Kind::U64 => array
            .as_primitive_opt::<UInt64Type>()
            .and_then(|numbers| numbers.iter().flatten().max()),
        _ => None,
    };
    match numbers {
        Some(number) if number > most => Err(ArrowError::InvalidArgumentError(format!(
            "column {} has {number}: expected no more than {most}",
            column.name
        ))),
        _ => Ok(()),
    }
}
