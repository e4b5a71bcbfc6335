//! Text files, plain or compressed, read a piece at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::InputError;

/// A longer line is no line of any format here; it is passed over, not kept in memory.
const LONGEST_LINE: u64 = 1 << 20;

/// How much of a file its format is told from.
const HEAD: u64 = 64 << 10;

/// Packed tighter than this, and larger than [`FREE`], it is made to fill a disk or a memory.
const RATIO: u64 = 200;
const FREE: u64 = 64 << 20;

/// With more lines than this that are none it is no file of any format here.
const MOST_UNREADABLE: usize = 1_000_000;

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    /// From 1.
    pub(crate) line: u64,
    pub(crate) why: String,
}

/// The file's text; gzip and zstd are told by their first bytes, whatever the name.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>, InputError> {
    let failed = |error| InputError::Read { path: path.to_path_buf(), error };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let size = file.get_ref().metadata().map_err(failed)?.len();
    let magic = file.fill_buf().map_err(failed)?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(Bounded::new(MultiGzDecoder::new(file), size)))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::Decoder::with_buffer(file).map_err(failed)?;
        Box::new(BufReader::new(Bounded::new(decoder, size)))
    } else {
        Box::new(file)
    })
}

/// Unpacked text, which ends with an error where there is too much of it.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    fn new(inner: R, packed: u64) -> Self {
        Self { inner, left: packed.saturating_mul(RATIO).max(FREE) }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let why = format!("it unpacks to more than {RATIO} times its size: unpack it yourself");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        Ok(read)
    }
}

fn too_many(path: &Path) -> InputError {
    let why = format!("more than {MOST_UNREADABLE} lines are of no known format");
    let error = io::Error::new(io::ErrorKind::InvalidData, why);
    InputError::Read { path: path.to_path_buf(), error }
}

/// The beginning of the file's text, without a byte order mark.
pub(crate) fn head(path: &Path) -> Result<Vec<u8>, InputError> {
    let mut head = Vec::new();
    open(path)?
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(|error| InputError::Read { path: path.to_path_buf(), error })?;
    if head.starts_with(b"\xef\xbb\xbf") {
        head.drain(..3);
    }
    Ok(head)
}

/// Calls `take` with every line that is not blank; what it refuses is set aside with its reason.
/// Returns how many lines there were.
pub(crate) fn each_line(
    path: &Path,
    unreadable: &mut Vec<Unreadable>,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<u64, InputError> {
    let failed = |error| InputError::Read { path: path.to_path_buf(), error };
    let mut input = open(path)?;
    let mut bytes = Vec::new();
    let (mut line, mut filled) = (0, 0);
    loop {
        bytes.clear();
        if (&mut input).take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            return Ok(filled);
        }
        line += 1;
        let whole = bytes.last() == Some(&b'\n') || (bytes.len() as u64) < LONGEST_LINE;
        if !whole {
            input.skip_until(b'\n').map_err(failed)?;
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        filled += 1;
        let taken = if whole { take(text) } else { Err("longer than 1 MiB".to_owned()) };
        if let Err(why) = taken {
            unreadable.push(Unreadable { path: path.to_path_buf(), line, why });
            if unreadable.len() > MOST_UNREADABLE {
                return Err(too_many(path));
            }
        }
    }
}

/// The names of a file's columns.
pub(crate) fn heading(path: &Path) -> Result<Vec<String>, InputError> {
    let mut reader = csv::Reader::from_reader(open(path)?);
    let names = reader.headers().map_err(|error| csv_failed(path, error))?;
    Ok(names.iter().map(|name| name.trim().to_owned()).collect())
}

/// The same for rows of comma-separated values; `row` finds a cell by its column's name.
pub(crate) fn each_row(
    path: &Path,
    unreadable: &mut Vec<Unreadable>,
    mut take: impl FnMut(&Row<'_>) -> Result<(), String>,
) -> Result<u64, InputError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(open(path)?);
    let headers = reader.headers().map_err(|error| csv_failed(path, error))?.clone();
    let mut record = csv::StringRecord::new();
    let mut rows = 0;
    loop {
        if unreadable.len() > MOST_UNREADABLE {
            return Err(too_many(path));
        }
        let mut bad = |line, why| {
            unreadable.push(Unreadable { path: path.to_path_buf(), line, why });
        };
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(rows),
            Ok(true) => {
                rows += 1;
                let line = record.position().map_or(0, csv::Position::line);
                if record.len() != headers.len() {
                    let (has, wants) = (record.len(), headers.len());
                    bad(line, format!("{has} columns, and the heading has {wants}"));
                } else if let Err(why) = take(&Row { headers: &headers, record: &record }) {
                    bad(line, why);
                }
            }
            Err(error) if error.is_io_error() => return Err(csv_failed(path, error)),
            Err(error) => {
                rows += 1;
                bad(error.position().map_or(0, csv::Position::line), "no UTF-8 text".to_owned());
            }
        }
    }
}

fn csv_failed(path: &Path, error: csv::Error) -> InputError {
    let error = match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        _ => io::Error::new(io::ErrorKind::InvalidData, "no UTF-8 text"),
    };
    InputError::Read { path: path.to_path_buf(), error }
}

/// One row of comma-separated values.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    headers: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

impl<'a> Row<'a> {
    /// `None` where there is no such column, or nothing in it.
    pub(crate) fn get(&self, column: &str) -> Option<&'a str> {
        let index = self.headers.iter().position(|name| name.trim() == column)?;
        self.record.get(index).map(str::trim).filter(|text| !text.is_empty())
    }

    pub(crate) fn number(&self, column: &str) -> Result<f64, String> {
        let text = self.get(column).ok_or_else(|| format!("nothing in column {column}"))?;
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("column {column}: `{text}` is no number"))
    }
}

/// Why a line is no JSON of the expected shape, without serde's position within the line.
pub(crate) fn json_why(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines_of(path: &Path) -> (Vec<String>, Vec<(u64, String)>) {
        let (mut lines, mut bad) = (Vec::new(), Vec::new());
        each_line(path, &mut bad, |line| {
            let text = String::from_utf8_lossy(line).into_owned();
            if text == "bad" {
                return Err("is bad".to_owned());
            }
            lines.push(text);
            Ok(())
        })
        .unwrap();
        (lines, bad.into_iter().map(|bad| (bad.line, bad.why)).collect())
    }

    #[test]
    fn what_unpacks_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb");
        let zeros = io::repeat(0).take(FREE + 1);
        zstd::stream::copy_encode(zeros, File::create(&path).unwrap(), 1).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        let refused = each_line(&path, &mut Vec::new(), |_| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("unpacks to more than 200 times"), "{refused}");
    }

    #[test]
    fn compressed_or_not_the_lines_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"\xef\xbb\xbfone\r\n\nbad\nlast";
        let plain = dir.path().join("a");
        std::fs::write(&plain, text).unwrap();
        let gz = dir.path().join("b");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        let zst = dir.path().join("c");
        std::fs::write(&zst, zstd::encode_all(&text[..], 1).unwrap()).unwrap();
        for path in [plain, gz, zst] {
            let (lines, bad) = lines_of(&path);
            assert_eq!(lines, ["one", "last"], "{}", path.display());
            assert_eq!(bad, [(3, "is bad".to_owned())]);
            assert!(head(&path).unwrap().starts_with(b"one"));
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let long = vec![b'x'; 3 << 20];
        std::fs::write(&path, [b"a\n", long.as_slice(), b"\nb\n"].concat()).unwrap();
        let (lines, bad) = lines_of(&path);
        assert_eq!(lines, ["a", "b"]);
        assert_eq!(bad, [(2, "longer than 1 MiB".to_owned())]);
    }

    #[test]
    fn rows_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "a,b\n1,2\n3\nx,4\n\"5\",6\n").unwrap();
        let (mut sum, mut bad) = (0.0, Vec::new());
        let rows = each_row(&path, &mut bad, |row| {
            sum += row.number("a")? + row.number("b")?;
            Ok(())
        });
        assert_eq!((rows.unwrap(), sum), (4, 14.0));
        let bad: Vec<_> = bad.iter().map(|bad| (bad.line, bad.why.as_str())).collect();
        let expected = [(3, "1 columns, and the heading has 2"), (4, "column a: `x` is no number")];
        assert_eq!(bad, expected);
    }
}
