//! The tables, and `docs/performance.md` from every topic that was measured in full.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::TOPICS;
use super::row::Row;
use crate::command::{self, say};
use crate::paths;

const INTRODUCTION: &str = "\
# Performance

Written by `cargo xtask bench`; not to be edited. Ratios are medians of alternating pairs (with, without, without,
with, …) in one run; the interval holds the true median in 95 of 100 runs. Both ends of every connection are on the
machine that is measured. Absolute figures are this machine's; ratios carry over.
";

/// What one topic came to, and where.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    command: String,
    machine: String,
    date: String,
    rows: Vec<Row>,
}

fn file(topic: &str) -> Result<PathBuf> {
    Ok(paths::target_dir()?.join("bench").join(format!("{topic}.json")))
}

/// Said where what else the host has, such as Docker's connection tracking, takes no part. The kernel's own
/// threads, the second of all processes, live in the host's namespace; that of init may not be looked at.
fn apart() -> &'static str {
    match ["2", "self"].map(|process| fs::read_link(format!("/proc/{process}/ns/net"))) {
        [Ok(host), Ok(ours)] if host != ours => ", in a network namespace of its own",
        _ => "",
    }
}

pub(crate) fn keep(topic: &str, rows: &[Row]) -> Result<()> {
    let kept = Kept {
        command: format!("cargo xtask bench {topic}"),
        machine: format!("{}{}", machine(), apart()),
        date: command::output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default().trim().to_owned(),
        rows: rows.to_vec(),
    };
    let path = file(topic)?;
    fs::write(&path, serde_json::to_vec_pretty(&kept)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("processors", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}, {processors} × {model}", kernel.trim())
}

/// Writes the page from every topic that was kept.
pub(crate) fn write() -> Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for topic in &TOPICS {
        let Ok(text) = fs::read(file(topic.name)?) else { continue };
        let kept: Kept = serde_json::from_slice(&text)?;
        let _ = writeln!(page, "\n{}", table(topic.title, &kept.rows));
        let _ = writeln!(page, "`{}` on {}, {}.", kept.command, kept.machine, kept.date);
    }
    let path = paths::root().join("docs/performance.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("wrote {}", path.display()));
    Ok(())
}

/// A heading, the rows, what they were made of, and what the limits are made of.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!("## {title}\n\n");
    let header = ["what", "goal", "measured", "interval", "met"].map(str::to_owned);
    let cells: Vec<[String; 5]> =
        std::iter::once(header).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| {
        cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default().max(3)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    for (index, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "| {} ", "-".repeat(width));
            }
            text.push_str("|\n");
        }
    }
    text.push('\n');
    for row in rows.iter().filter(|row| !row.detail.is_empty()) {
        let _ = writeln!(text, "- {}: {}", row.what, row.detail);
    }
    for row in rows.iter().filter(|row| row.met() == Some(false) && !row.limit.is_empty()) {
        let _ = writeln!(text, "- Missed: {}. {}", row.what, row.limit);
    }
    text
}
