//! A fleet in an S3 bucket (feature `cloud`). A file is brought here whole when it is read, since nearly
//! all of its columns are needed, into a temporary file without a name.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, ObjectStoreExt as _, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use crate::error::InputError;

/// How much of a file is in memory at a time, in bytes.
const PIECE: u64 = 8 << 20;

/// After what a store that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Bucket {
    /// `s3://bucket/prefix`, without a slash at its end.
    url: String,
    prefix: Key,
    store: AmazonS3,
    runtime: Runtime,
}

impl Bucket {
    /// With the credentials, region and endpoint that the environment names, as for Amazon's own tools.
    pub(crate) fn open(url: &str) -> Result<Self, InputError> {
        let url = url.trim_end_matches('/');
        let failed = |error| InputError::Bucket { url: url.to_owned(), error };
        let (bucket, prefix) = split(url);
        let retry =
            RetryConfig { max_retries: 3, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .build()
            .map_err(failed)?;
        let prefix = Key::parse(prefix).map_err(|error| failed(error.into()))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| InputError::Read { path: url.into(), error })?;
        Ok(Self { url: url.to_owned(), prefix, store, runtime })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `host=…/date=…/….parquet` of every file of a table, in order.
    pub(crate) fn captures(&self, table: &str) -> Result<Vec<PathBuf>, InputError> {
        let table = self.key(table)?;
        let listing = self.store.list(Some(&table)).try_collect::<Vec<_>>();
        let objects = self.runtime.block_on(listing).map_err(|error| self.failed(error))?;
        let below = |key: &Key| -> Option<PathBuf> {
            let parts: Vec<_> = key.prefix_match(&table)?.collect();
            let [host, date, file] = parts.as_slice() else { return None };
            let is_capture = host.as_ref().starts_with("host=")
                && date.as_ref().starts_with("date=")
                && file.as_ref().ends_with(".parquet");
            is_capture.then(|| parts.iter().map(AsRef::as_ref).collect())
        };
        let mut captures: Vec<_> =
            objects.iter().filter_map(|object| below(&object.location)).collect();
        if captures.is_empty() {
            return Err(InputError::EmptyBucket(self.url.clone()));
        }
        captures.sort();
        Ok(captures)
    }

    /// `None` where there is no such file.
    pub(crate) fn file(&self, table: &str, below: &Path) -> Result<Option<File>, InputError> {
        let key = self.key(&format!("{table}/{}", below.display()))?;
        let size = match self.runtime.block_on(self.store.head(&key)) {
            Ok(object) => object.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let unwritten = |error| InputError::Write { path: std::env::temp_dir(), error };
        let mut file = tempfile::tempfile().map_err(unwritten)?;
        for from in (0..size).step_by(PIECE as usize) {
            let range = from..size.min(from + PIECE);
            let piece = self.runtime.block_on(self.store.get_range(&key, range));
            file.write_all(&piece.map_err(|error| self.failed(error))?).map_err(unwritten)?;
        }
        Ok(Some(file))
    }

    fn key(&self, below: &str) -> Result<Key, InputError> {
        Key::parse(format!("{}/{below}", self.prefix)).map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, error: object_store::Error) -> InputError {
        InputError::Bucket { url: self.url.clone(), error }
    }
}

/// Bucket and prefix of `s3://bucket/prefix`.
fn split(url: &str) -> (&str, &str) {
    let place = url.strip_prefix("s3://").unwrap_or(url);
    place.split_once('/').unwrap_or((place, ""))
}
