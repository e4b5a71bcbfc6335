//! What is printed for people: names come from files of other machines and from processes there, and steer
//! nobody's terminal.

use std::io::{self, Write};

/// Standard output, as it is for programs (`raw`), or else without what a terminal obeys.
pub(crate) fn stdout(raw: bool) -> Box<dyn Write> {
    let out = io::stdout().lock();
    if raw { Box::new(out) } else { Box::new(Plain(out)) }
}

/// Lines in which other control characters are shown as `?`.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Takes whole characters at a time, as `write!` hands them on.
struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(plain(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
