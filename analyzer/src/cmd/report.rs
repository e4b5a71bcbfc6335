//! `analyzer report`: everything, as HTML, Markdown and JSON.

use std::fs;
use std::io::{self, Write};

use crate::cli;
use crate::clients;
use crate::error::{InputError, Outcome};
use crate::input::lab;
use crate::input::recording::Recording;
use crate::report::{build, html, json, markdown, text};

pub(crate) fn run(args: &cli::Report) -> anyhow::Result<Outcome> {
    let recordings = args
        .captures
        .iter()
        .map(|dir| Recording::open(dir))
        .collect::<anyhow::Result<Vec<Recording>>>()?;
    let clients = if args.client.is_empty() {
        None
    } else {
        let (mut connections, mut unreadable) = (Vec::new(), Vec::new());
        for path in &args.client {
            lab::read(path, &mut connections, &mut unreadable)?;
        }
        let files = args.client.iter().map(|path| path.display().to_string()).collect();
        Some(clients::report(files, &connections, &unreadable, &recordings)?)
    };
    let report = build::report(&recordings, &args.judging, args.max_failed, clients)?;

    let dir = args.output.as_ref().unwrap_or(&args.captures[0]);
    let json = json::render(&report)?;
    let markdown = markdown::render(&report);
    fs::create_dir_all(dir).map_err(|error| InputError::Write { path: dir.clone(), error })?;
    let files =
        [("report.json", &json), ("report.md", &markdown), ("report.html", &html::render(&report))];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| InputError::Write { path, error })?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(json.as_bytes())?;
    } else {
        out.write_all(text::summary(&report).as_bytes())?;
    }
    out.flush()?;
    eprintln!("report: {}", dir.join("report.html").display());
    Ok(report.verdict.state.outcome())
}
