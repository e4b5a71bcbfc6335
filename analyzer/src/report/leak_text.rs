//! Leaks for a terminal: checkpoints as they would have been printed live, then the trends.

use std::fmt::Write;

use crate::clock::{utc, utc_time};
use crate::leak::checkpoint::Checkpoint;
use crate::leak::report::{Followed, LeakReport, limits};
use crate::report::text::wrap;
use crate::report::verdict::thousands;

/// The short names of the checkpoint lines.
const SHORT: [(&str, &str); 6] = [
    ("goroutines", "GOR"),
    ("descriptors", "FD"),
    ("memory_mb", "MEM"),
    ("managers", "MGR"),
    ("phantoms", "PHANTOMS"),
    ("proxy_connections", "CONN"),
];

pub(crate) fn render(report: &LeakReport) -> String {
    let mut text = format!("{}\n\n", report.name);
    let is_shown = |checkpoint: &&Checkpoint| {
        checkpoint.values.iter().any(|value| is_in_checkpoints(&value.name))
    };
    for checkpoint in report.checkpoints.iter().filter(is_shown) {
        text.push_str(&checkpoint_line(checkpoint, report.planned));
    }
    let _ = writeln!(
        text,
        "\n{:22} {:>10} {:>10} {:>9} {:>9} {:>18}  course",
        "", "baseline", "final", "growth", "per min", "95 % within"
    );
    for followed in &report.followed {
        text.push_str(&followed_line(followed));
    }
    text.push('\n');
    for followed in &report.followed {
        wrap(&mut text, "  ", &format!("{}: {}", followed.name, followed.source));
    }
    for gap in &report.gaps {
        let (from, to) = (utc(gap.from_unix_ns), utc_time(gap.to_unix_ns));
        let line = format!("nothing from {} between {from} and {to} UTC", gap.source);
        wrap(&mut text, "gap: ", &line);
    }
    for bad in &report.unreadable_lines {
        wrap(&mut text, "unreadable: ", &format!("{}:{}: {}", bad.file, bad.line, bad.why));
    }
    for sentence in &report.related {
        wrap(&mut text, "+ ", sentence);
    }
    text.push('\n');
    wrap(&mut text, "", &report.conclusion);
    text.push('\n');
    text
}

/// `Baseline: GOR=12 FD=9`, or `[3/15] 6min: GOR=18 (+6, +1.0/min) FD=9 (+0, +0.0/min)`.
fn checkpoint_line(checkpoint: &Checkpoint, planned: usize) -> String {
    let mut line = match checkpoint.number {
        0 => "Baseline:".to_owned(),
        n => format!("[{n}/{planned}] {}:", minutes(checkpoint.minutes)),
    };
    for (name, short) in SHORT {
        let Some(value) = checkpoint.values.iter().find(|value| value.name == name) else {
            continue;
        };
        let _ = write!(line, " {short}={}", number(value.value));
        if checkpoint.number > 0 {
            let _ = write!(line, " ({}", signed(value.growth));
            // A rate where there is a target for it: lines that wrap are no table.
            if limits(name).is_some() {
                let _ = write!(line, ", {:+.1}/min", value.per_minute);
            }
            line.push(')');
        }
    }
    line.push('\n');
    line
}

/// Whether checkpoints have this series: those that targets are set for, and what they go with.
pub(crate) fn is_in_checkpoints(name: &str) -> bool {
    SHORT.iter().any(|(known, _)| *known == name)
}

pub(crate) fn minutes(minutes: f64) -> String {
    if minutes >= 1.0 || minutes == 0.0 {
        format!("{}min", number(minutes))
    } else {
        format!("{}s", number(minutes * 60.0))
    }
}

fn followed_line(followed: &Followed) -> String {
    let trend = &followed.trend;
    let rate = |rate: Option<f64>| rate.map_or("–".to_owned(), |rate| format!("{rate:+.1}"));
    let within = match (trend.low_per_minute, trend.high_per_minute) {
        (Some(low), Some(high)) => format!("{low:+.1} to {high:+.1}"),
        _ => "–".to_owned(),
    };
    format!(
        "{:22} {:>10} {:>10} {:>9} {:>9} {within:>18}  {}\n",
        followed.name,
        number(trend.baseline),
        number(trend.last),
        signed(trend.growth),
        rate(trend.per_minute),
        trend.shape.words()
    )
}

/// Whole numbers as they are, others with one digit.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        thousands(value as i64)
    } else {
        format!("{value:.1}")
    }
}

pub(crate) fn signed(value: f64) -> String {
    if value >= 0.0 { format!("+{}", number(value)) } else { number(value) }
}
