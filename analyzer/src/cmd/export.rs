//! `analyzer export`: captures into a fleet's directory.

use std::path::Path;

use capture::Capture;

use crate::cli;
use crate::error::{InputError, Outcome};
use crate::fleet::Place;
use crate::input::recording::Recording;
use crate::report::build;

pub(crate) fn run(args: &cli::Export) -> anyhow::Result<Outcome> {
    for dir in &args.captures {
        let rows = export(dir, args)?;
        eprintln!("{}: {rows} rows", dir.display());
    }
    Ok(Outcome::Held)
}

fn export(dir: &Path, args: &cli::Export) -> anyhow::Result<u64> {
    let recording = Recording::open(dir)?;
    let capture = Capture::open(dir).map_err(InputError::from)?;
    let place = Place::new(&args.parquet, capture.meta())?;
    let servers = build::servers(&recording, &args.judging)?;
    let samples = place.write_samples(&servers, &recording)?;
    // Last, since a fleet is read back by its connections.
    Ok(samples + place.write_capture(&capture, &recording)?)
}
