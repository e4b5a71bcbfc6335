//! `analyzer schema`: the capture format as this version reads it, and the report as it writes it.

use std::io::{self, Write};

use capture::outcome::Outcome as Handshake;
use capture::schema::{MAJOR, MINOR, Table};

use crate::cli;
use crate::error::Outcome;
use crate::report::model::Report;

pub(crate) fn run(args: &cli::Schema) -> anyhow::Result<Outcome> {
    if args.table.as_deref() == Some(cli::REPORT_SCHEMA) {
        let schema = schemars::schema_for!(Report);
        writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&schema)?)?;
        return Ok(Outcome::Held);
    }
    if args.table.as_deref() == Some(cli::OUTCOMES) {
        outcomes(args.json)?;
        return Ok(Outcome::Held);
    }
    let wanted = |table: &Table| args.table.as_ref().is_none_or(|name| name == table.name());
    let mut out = io::stdout().lock();
    for table in Table::ALL.into_iter().filter(wanted) {
        if !args.json {
            writeln!(out, "{} (capture format {MAJOR}.{MINOR})", table.name())?;
        }
        for column in table.columns() {
            let meaning = column.meaning.trim();
            if args.json {
                let line = serde_json::json!({
                    "table": table.name(),
                    "column": column.name,
                    "type": column.kind.name(),
                    "nullable": column.nullable,
                    "meaning": meaning,
                });
                writeln!(out, "{line}")?;
            } else {
                let kind =
                    format!("{}{}", column.kind.name(), if column.nullable { "?" } else { "" });
                writeln!(out, "{}", format!("  {:24} {kind:6} {meaning}", column.name).trim_end())?;
            }
        }
        if !args.json {
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(Outcome::Held)
}

fn outcomes(json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for Handshake { name, kind, evidence } in Handshake::ALL {
        let kind = kind.name();
        if json {
            let line = serde_json::json!({ "outcome": name, "kind": kind, "evidence": evidence });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{name:29} {kind:10} {evidence}")?;
        }
    }
    Ok(out.flush()?)
}
