//! `analyzer report`: everything, as HTML, Markdown and JSON.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::both::both;
use crate::cli;
use crate::cmd::{clients, leaks};
use crate::error::{InputError, Outcome};
use crate::input::fleet;
use crate::input::recording::Recording;
use crate::report::build::{self, Request};
use crate::report::{html, json, markdown, terminal, text};

pub(crate) fn run(args: &cli::Report) -> anyhow::Result<Outcome> {
    let dir = args.output.as_ref().unwrap_or(&args.captures[0]);
    if fleet::bucket_url(dir).is_some() || (args.output.is_none() && dir.is_file()) {
        return Err(InputError::ReportIntoInput(dir.clone()).into());
    }
    let (recordings, clients) =
        both(|| Recording::open_each(&args.captures), || clients::read(&args.clients));
    let recordings = recordings?;
    let request = Request {
        max_failed: args.max_failed,
        rules: args.chosen.rules()?,
        clients: clients?,
        plan: (&args.over_time).into(),
        logs: leaks::logs(&args.over_time)?,
    };
    let report = build::report(&recordings, &args.judging, request)?;

    let json = json::render(&report)?;
    let markdown = markdown::render(&report);
    let html = terminal::plain(&html::render(&report));
    fs::create_dir_all(dir).map_err(|error| InputError::Write { path: dir.clone(), error })?;
    let files = [("report.json", &json), ("report.md", &markdown), ("report.html", &html)];
    for (name, text) in files {
        let path = dir.join(name);
        write_anew(&path, text).map_err(|error| InputError::Write { path, error })?;
    }
    let mut out = terminal::stdout(args.json);
    if args.json {
        out.write_all(json.as_bytes())?;
    } else {
        out.write_all(text::summary(&report).as_bytes())?;
    }
    out.flush()?;
    eprintln!("report: {}", dir.join("report.html").display());
    Ok(report.verdict.state.outcome())
}

/// Without `-o` it is the capture's own directory, which comes from elsewhere: a link that lies there by
/// the name of a report is taken away, and what it points to is not written to.
fn write_anew(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::create_new(path)?.write_all(text.as_bytes()),
    }
}
