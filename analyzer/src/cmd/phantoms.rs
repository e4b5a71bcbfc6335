//! `analyzer phantoms`: the differences between reported and established, without the rest.

use std::io::Write;

use crate::cli;
use crate::error::Outcome;
use crate::input::recording::Recording;
use crate::report::build::{self, Request};
use crate::report::{json, terminal, text};

pub(crate) fn run(args: &cli::Phantoms) -> anyhow::Result<Outcome> {
    let recordings = Recording::open_each(&args.captures)?;
    let request = Request { rules: args.chosen.rules()?, ..Request::default() };
    let report = build::report(&recordings, &args.judging, request)?;
    let output = if args.json { json::findings(&report)? } else { text::phantoms(&report) };
    let mut out = terminal::stdout(args.json);
    out.write_all(output.as_bytes())?;
    out.flush()?;
    Ok(report.verdict.state.outcome())
}
