//! `analyzer connections`: the recorded rows, one leg each.

use std::io::{self, BufWriter, Write};

use capture::schema::Table;
use polars::prelude::{AnyValue, BooleanChunked, DataFrame};

use crate::cli;
use crate::error::{InputError, Outcome};
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::build::connection_summary;
use crate::report::text::printable;
use crate::report::verdict::thousands;

/// What the table shows unless asked for more: fits 100 columns.
const USUAL: [&str; 8] = [
    "local_port",
    "remote_address",
    "remote_port",
    "role",
    "state",
    "class",
    "closed_how",
    "closed_by",
];

pub(crate) fn run(args: &cli::Connections) -> anyhow::Result<Outcome> {
    if args.summary {
        return summarise(args);
    }
    let all: Vec<&str> = Table::Connections.columns().iter().map(|column| column.name).collect();
    for wanted in &args.columns {
        if !all.contains(&wanted.as_str()) {
            let wanted = wanted.clone();
            return Err(InputError::NoColumn { wanted, table: "connections" }.into());
        }
    }
    let columns: Vec<&str> = if !args.columns.is_empty() {
        args.columns.iter().map(String::as_str).collect()
    } else if args.json || args.csv {
        all
    } else {
        USUAL.to_vec()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if args.csv {
        writeln!(out, "{}", columns.join(","))?;
    }
    let mut tables = Vec::new();
    for dir in &args.captures {
        for (recording, table) in Recording::open_all_with_rows(dir)? {
            let rows = select(&recording, &table, args)?.select(columns.iter().copied())?;
            if args.json {
                write_json(&mut out, &rows, &columns)?;
            } else if args.csv {
                write_csv(&mut out, &rows)?;
            } else {
                tables.push(rows);
            }
        }
    }
    if !args.json && !args.csv {
        write_table(&mut out, &tables, &columns)?;
    }
    out.flush()?;
    Ok(Outcome::Held)
}

fn summarise(args: &cli::Connections) -> anyhow::Result<Outcome> {
    let mut out = BufWriter::new(io::stdout().lock());
    for recording in Recording::open_each(&args.captures)? {
        let found = connection_summary(&recording);
        if args.json {
            serde_json::to_writer(&mut out, &found)?;
            writeln!(out)?;
            continue;
        }
        let total = thousands(found.total as i64);
        writeln!(out, "{}: {total} connections\n", printable(&recording.name))?;
        let widest = found.by_service.iter().map(|one| one.container.chars().count()).max();
        let width = widest.unwrap_or(0).max("container".len());
        writeln!(
            out,
            "{:width$}  {:>5}  {:8}{:>12}{:>12}{:>17}",
            "container", "port", "role", "connections", "established", "open at the end"
        )?;
        for one in &found.by_service {
            let [all, made, open] = [one.connections, one.established, one.open_at_end]
                .map(|count| thousands(count as i64));
            let name = printable(&one.container);
            let (port, role) = (one.port, &one.role);
            writeln!(out, "{name:width$}  {port:>5}  {role:8}{all:>12}{made:>12}{open:>17}")?;
        }
    }
    out.flush()?;
    Ok(Outcome::Held)
}

fn select(
    recording: &Recording,
    table: &DataFrame,
    args: &cli::Connections,
) -> anyhow::Result<DataFrame> {
    let rows = table.filter(&Population::of_filter(recording, &args.filter)?.mask(table)?)?;
    if args.state.is_empty() {
        return Ok(rows);
    }
    let states = rows.column("state")?.str()?;
    let mask: BooleanChunked = states
        .iter()
        .map(|state| state.is_some_and(|s| args.state.iter().any(|a| a == s)))
        .collect();
    Ok(rows.filter(&mask)?)
}

fn write_json(out: &mut impl Write, rows: &DataFrame, columns: &[&str]) -> anyhow::Result<()> {
    // Keys never need escaping, so each is written once.
    let keys: Vec<String> = columns.iter().map(|name| format!("\"{name}\":")).collect();
    for row in 0..rows.height() {
        let mut before = '{';
        for (column, key) in rows.columns().iter().zip(&keys) {
            write!(out, "{before}{key}")?;
            match column.get(row)? {
                AnyValue::Null => write!(out, "null")?,
                AnyValue::String(text) => serde_json::to_writer(&mut *out, text)?,
                value => write!(out, "{value}")?,
            }
            before = ',';
        }
        writeln!(out, "}}")?;
    }
    Ok(())
}

fn write_csv(out: &mut impl Write, rows: &DataFrame) -> anyhow::Result<()> {
    for row in 0..rows.height() {
        for (index, column) in rows.columns().iter().enumerate() {
            if index > 0 {
                write!(out, ",")?;
            }
            match column.get(row)? {
                AnyValue::Null => {}
                AnyValue::String(text) if text.contains(['"', ',', '\n', '\r']) => {
                    write!(out, "\"{}\"", text.replace('"', "\"\""))?;
                }
                AnyValue::String(text) => write!(out, "{text}")?,
                value => write!(out, "{value}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_table(out: &mut impl Write, tables: &[DataFrame], columns: &[&str]) -> anyhow::Result<()> {
    let mut widths: Vec<usize> = columns.iter().map(|name| name.len()).collect();
    let mut lines = Vec::new();
    for rows in tables {
        for row in 0..rows.height() {
            let mut cells = Vec::with_capacity(columns.len());
            for (column, width) in rows.columns().iter().zip(&mut widths) {
                let cell = match column.get(row)? {
                    AnyValue::Null => "-".to_owned(),
                    AnyValue::String(text) => printable(text),
                    value => value.to_string(),
                };
                *width = (*width).max(cell.chars().count());
                cells.push(cell);
            }
            lines.push(cells);
        }
    }
    let header: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    for cells in std::iter::once(&header).chain(&lines) {
        let line: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
