//! Where a recording's rows go; through times when they can't be written, if that is wanted.

use std::path::PathBuf;

use capture::{CaptureWriter, WriteError, meta::Meta, schema::LossRow, writer::Summary};

use crate::clock;

/// What to do when the capture can't be written.
#[derive(Clone, Debug)]
pub(crate) enum OnBreak {
    /// End with the error.
    Stop,
    /// Drop rows until it can be written again; then say so in it. The directory is for messages, the
    /// socket is that of an agent, whose end is waited out as well.
    Resume { directory: PathBuf, agent: PathBuf },
}

pub(crate) struct Output {
    writer: CaptureWriter,
    on_break: OnBreak,
    broken: Option<Break>,
}

/// A time in which nothing could be written.
struct Break {
    since_mono_ns: i64,
    error: WriteError,
    lost_rows: u64,
}

impl Output {
    pub(crate) fn new(writer: CaptureWriter, on_break: OnBreak) -> Self {
        Self { writer, on_break, broken: None }
    }

    /// Hands rows to a table.
    ///
    /// # Errors
    /// What ends the recording.
    pub(crate) fn write<R>(
        &mut self,
        rows: &[R],
        table: impl FnOnce(&mut CaptureWriter, &[R]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        if let Some(broken) = &mut self.broken {
            broken.lost_rows += rows.len() as u64;
            return Ok(());
        }
        table(&mut self.writer, rows).or_else(|error| self.breaks(error))
    }

    /// Once a second: what was handed over goes to the operating system. True if the capture could not
    /// be written, and can be again from here on.
    ///
    /// # Errors
    /// What ends the recording.
    pub(crate) fn flush(&mut self) -> Result<bool, WriteError> {
        if self.broken.is_some() {
            return Ok(self.resume());
        }
        self.writer.flush().or_else(|error| self.breaks(error))?;
        Ok(false)
    }

    /// # Errors
    /// What ends the recording, or still lasts at its end.
    pub(crate) fn finish(mut self, meta: &Meta) -> Result<Summary, WriteError> {
        self.resume();
        match self.broken {
            Some(broken) => Err(broken.error),
            None => self.writer.finish(meta),
        }
    }

    fn breaks(&mut self, error: WriteError) -> Result<(), WriteError> {
        let OnBreak::Resume { .. } = &self.on_break else { return Err(error) };
        if matches!(error, WriteError::Encode { .. }) {
            return Err(error);
        }
        eprintln!("probe: {error}; goes on as soon as it can be written");
        let lost_rows = error.lost_rows() + self.writer.suspend();
        self.broken = Some(Break { since_mono_ns: clock::mono_ns(), error, lost_rows });
        Ok(())
    }

    fn resume(&mut self) -> bool {
        let (Some(broken), OnBreak::Resume { directory, .. }) = (&mut self.broken, &self.on_break)
        else {
            return false;
        };
        let now = clock::mono_ns();
        let written = self.writer.resume().and_then(|gone| {
            broken.lost_rows += gone;
            self.writer.loss(&[LossRow {
                from_mono_ns: broken.since_mono_ns,
                to_mono_ns: now,
                reason: format!("not written: {}", broken.error).into(),
                count: broken.lost_rows,
            }])?;
            self.writer.flush()
        });
        if written.is_err() {
            self.writer.suspend();
            return false;
        }
        eprintln!(
            "probe: recording to {} again; {} rows of {:.0} s are missing, and it says so",
            directory.display(),
            broken.lost_rows,
            (now - broken.since_mono_ns) as f64 / 1e9,
        );
        self.broken = None;
        true
    }
}
