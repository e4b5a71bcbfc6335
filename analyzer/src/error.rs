//! What can go wrong without being a bug, and the exit code of each end.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use capture::ReadError;

/// Bad input or wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error(transparent)]
    Capture(#[from] ReadError),
    #[error("cannot read {}: {error}{}", .path.display(), next_step(.error))]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write {}: {error}: make room there, or choose another place", .path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{}: no column `{column}` for --map: it has {has}", .path.display())]
    NoMappedColumn { path: PathBuf, column: String, has: String },
    #[error(
        "{}: no line is a client result; line {line}: {why}; expected {expected}",
        .path.display()
    )]
    NoClientLines { path: PathBuf, line: u64, why: String, expected: String },
    #[error("{} is empty: expected results of lab, k6, Artillery or Locust", .0.display())]
    EmptyClientFile(PathBuf),
    #[error(
        "{}: no line has a number with a time; line {line}: {why}; expected JSON lines with a time, or \
         a status page (Prometheus, nginx, haproxy, Envoy) with a time before each, as `date -Is` prints it",
        .path.display()
    )]
    NoLogLines { path: PathBuf, line: u64, why: String },
    #[error("{}: {why}", .path.display())]
    Thresholds { path: PathBuf, why: String },
    #[error(
        "{} is not of `analyzer export`: expected the capture's metadata in it; move other files elsewhere",
        .0.display()
    )]
    NotExported(PathBuf),
    #[error(
        "{0} is in an object store, which this analyzer was built without: build it with \
         `cargo build --release -p analyzer --features cloud`"
    )]
    #[cfg(not(feature = "cloud"))]
    NoCloud(String),
    #[error(
        "cannot read {url}: {error}; expected AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION \
         in the environment, and AWS_ENDPOINT_URL for a store that is not Amazon's"
    )]
    #[cfg(feature = "cloud")]
    Bucket { url: String, error: object_store::Error },
    #[error(
        "{0} has no capture: expected connections/host=…/date=…/….parquet below it; \
         pack captures with `analyzer export --parquet`, and copy that directory there"
    )]
    #[cfg(feature = "cloud")]
    EmptyBucket(String),
    #[error(
        "{} is no capture: expected the directory that `probe record -o` wrote, or a tar archive of it, \
         plain or as .gz or .zst",
        .0.display()
    )]
    NoArchive(PathBuf),
    #[error(
        "{} holds more than one capture: unpack it, and name the directories",
        .0.display()
    )]
    TwoCaptures(PathBuf),
    #[error("{} is only read from: say where the report goes with -o DIR", .0.display())]
    ReportIntoInput(PathBuf),
    #[error("no client results are named: give a file with --client")]
    NoClientFile,
    #[error("nothing to read: name a capture, or a log with --log")]
    NothingToRead,
    #[error("no container is called {wanted} in {}: it has {known}", .dir.display())]
    NoContainer { wanted: String, known: String, dir: PathBuf },
    #[error("{table} has no column {wanted}: `analyzer schema` lists them")]
    NoColumn { wanted: String, table: &'static str },
}

/// What to do about a file that could not be read, where the error itself does not say so.
fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => ": look at the path, which starts at the current directory",
        io::ErrorKind::PermissionDenied => ": run it as the file's owner, or copy the file",
        io::ErrorKind::IsADirectory => ": name a file in it",
        io::ErrorKind::UnexpectedEof => {
            ": the file was cut off; `zcat` or `zstdcat` gives what is left of it, in a new file"
        }
        _ => "",
    }
}

/// How a run ended, beside errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Held,
    Inconclusive,
    Crossed,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Outcome::Held => 0,
            Outcome::Inconclusive => 4,
            Outcome::Crossed => 99,
        })
    }
}

/// 2 for what the user can mend, 1 for a bug. A reader that has had enough (`| head`) is neither.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    ExitCode::from(if error.downcast_ref::<InputError>().is_some() { 2 } else { 1 })
}

pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
