//! A Parquet file that several readers read at the same time.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::reader::{ChunkReader, Length};

/// Every reader is at a place of its own: clones of a [`File`] share theirs.
#[derive(Clone, Debug)]
pub(crate) struct SharedFile(Arc<File>);

impl SharedFile {
    pub(crate) fn new(file: File) -> Self {
        Self(Arc::new(file))
    }
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        Length::len(&*self.0)
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(ReadFrom { file: Arc::clone(&self.0), place: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let from = ReadFrom { file: Arc::clone(&self.0), place: start };
        // Grows as it is read: how long it is, is the file's own word.
        if from.take(length as u64).read_to_end(&mut bytes)? < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes.into())
    }
}

/// Reads on from one place.
#[derive(Debug)]
pub(crate) struct ReadFrom {
    file: Arc<File>,
    place: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn readers_do_not_move_each_other() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let shared = SharedFile::new(file);
        assert_eq!(shared.len(), 10);
        let (mut one, mut other) = (shared.get_read(2).unwrap(), shared.get_read(7).unwrap());
        let (mut text, mut end) = ([0; 3], String::new());
        one.read_exact(&mut text).unwrap();
        assert_eq!(*shared.get_bytes(4, 2).unwrap(), *b"45");
        other.read_to_string(&mut end).unwrap();
        assert_eq!((&text, end.as_str()), (b"234", "789"));
        one.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"567");
        assert!(shared.get_bytes(8, 3).is_err());
    }
}
