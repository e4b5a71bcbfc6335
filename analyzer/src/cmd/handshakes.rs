//! `analyzer handshakes`: where attempts fail, and why.

use std::io::Write;

use serde::Serialize;

use crate::cli;
use crate::error::Outcome;
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::handshake::{self, HandshakeReport};
use crate::report::model::{Magnitude, SCHEMA_VERSION};
use crate::report::{handshake_text, terminal, text};
use crate::threshold::judge;
use crate::threshold::measure::Subject;

pub(crate) fn run(args: &cli::Handshakes) -> anyhow::Result<Outcome> {
    let mut out = terminal::stdout(args.json || args.attempts);
    let mut reports = Vec::new();
    for dir in &args.captures {
        for recording in Recording::open_all(dir)? {
            let population = Population::of_filter(&recording, &args.filter)?;
            if args.attempts {
                for attempt in handshake::named(&recording, &population) {
                    serde_json::to_writer(&mut out, &attempt)?;
                    out.write_all(b"\n")?;
                }
            }
            reports.push(handshake::of(&recording, &population));
        }
    }
    let shown = if args.attempts { &[] } else { reports.as_slice() };
    for (index, report) in shown.iter().enumerate() {
        if args.json {
            #[derive(Serialize)]
            struct Line<'a> {
                schema_version: &'static str,
                #[serde(flatten)]
                report: &'a HandshakeReport,
            }
            serde_json::to_writer(&mut out, &Line { schema_version: SCHEMA_VERSION, report })?;
            out.write_all(b"\n")?;
        } else {
            if index > 0 {
                out.write_all(b"\n")?;
            }
            out.write_all(handshake_text::render(report).as_bytes())?;
        }
    }
    let mut thresholds = judge(&args.chosen.rules()?, &Subject::of_handshakes(&reports));
    if let Some(limit) = args.max_failed {
        let magnitudes: Vec<Magnitude> = reports.iter().map(handshake::failed).collect();
        thresholds.insert(0, limit.judge("failed handshakes", &magnitudes, true));
    }
    if !args.attempts && !args.json && !thresholds.is_empty() {
        write!(out, "\n{}", text::threshold_lines(&thresholds))?;
    }
    out.flush()?;
    Ok(text::outcome(&thresholds))
}
