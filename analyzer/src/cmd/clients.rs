//! `analyzer clients`: what the clients saw, beside what the kernel saw of them.

use std::io::Write;

use serde::Serialize;

use crate::cli::{self, ClientFiles};
use crate::client;
use crate::client::report::ClientReport;
use crate::error::{InputError, Outcome};
use crate::input::client::{ClientResults, read as read_file};
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::handshake;
use crate::report::model::{SCHEMA_VERSION, Threshold};
use crate::report::{client_text, terminal, text};
use crate::threshold::judge;
use crate::threshold::measure::Subject;

pub(crate) fn run(args: &cli::Clients) -> anyhow::Result<Outcome> {
    let results = read(&args.files)?.ok_or(InputError::NoClientFile)?;
    let recordings = Recording::open_each(&args.captures)?;
    let (mut populations, mut handshakes) = (Vec::new(), Vec::new());
    for recording in &recordings {
        let population = Population::of_filter(recording, &args.filter)?;
        handshakes.push(handshake::of(recording, &population));
        populations.push(population);
    }
    let populations: Vec<&Population> = populations.iter().collect();
    let report = client::report::of(results, &recordings, &populations, &handshakes);
    let subject = Subject { clients: Some(&report), ..Subject::of_handshakes(&handshakes) };
    let thresholds = judge(&args.chosen.rules()?, &subject);

    let mut out = terminal::stdout(args.json);
    if args.json {
        #[derive(Serialize)]
        struct Line<'a> {
            schema_version: &'static str,
            #[serde(flatten)]
            report: &'a ClientReport,
            thresholds: &'a [Threshold],
        }
        let line =
            Line { schema_version: SCHEMA_VERSION, report: &report, thresholds: &thresholds };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(client_text::render(&report).as_bytes())?;
        out.write_all(text::threshold_lines(&thresholds).as_bytes())?;
    }
    out.flush()?;
    Ok(text::outcome(&thresholds))
}

/// All files together; `None` if none is named.
pub(crate) fn read(files: &ClientFiles) -> Result<Option<ClientResults>, InputError> {
    if files.client.is_empty() {
        return Ok(None);
    }
    let mut results = ClientResults::default();
    for path in &files.client {
        read_file(path, files.map.as_ref(), &mut results)?;
    }
    Ok(Some(results))
}
