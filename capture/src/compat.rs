//! Rows of older minor versions in the columns of this one.

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema};
use std::sync::Arc;

use crate::schema::Column;

/// Puts a batch's columns in this order; what the file lacks becomes null, what this
/// version does not know is left out. A column that was added later is nullable here whatever the
/// current schema says, since older rows have no value for it.
///
/// # Errors
/// If a column that may not be null here has nulls.
pub fn conform(batch: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let data_type = column.kind.data_type();
        let found = batch.column_by_name(column.name);
        fields.push(Field::new(column.name, data_type.clone(), column.nullable || found.is_none()));
        arrays.push(match found {
            Some(array) => array.clone(),
            None => new_null_array(&data_type, batch.num_rows()),
        });
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
