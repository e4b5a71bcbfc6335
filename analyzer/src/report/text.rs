//! The report for a terminal: no colours, at most 100 columns.

use std::fmt::Write;

use crate::client::report::ClientReport;
use crate::clock::{ToldBy, utc};
use crate::error::Outcome;
use crate::report::build::state;
use crate::report::client_text::milliseconds;
use crate::report::model::{
    Episode, Finding, Magnitude, Report, ServerReport, Threshold, VerdictState,
};
use crate::report::verdict::thousands;
use crate::threshold::undecided;

const WIDTH: usize = 96;

/// Verdict, sentences, thresholds.
pub(crate) fn summary(report: &Report) -> String {
    let mut text = format!("{}  {}\n\n", mark(report.verdict.state), report.verdict.headline);
    for sentence in &report.verdict.sentences {
        wrap(&mut text, "", sentence);
    }
    text.push('\n');
    text.push_str(&threshold_lines(&report.thresholds));
    if let Some(clients) = &report.clients {
        text.push('\n');
        wrap(&mut text, "", &client_sentence(clients));
    }
    for leaks in report.captures.iter().filter_map(|capture| capture.leaks.as_ref()) {
        text.push('\n');
        wrap(&mut text, "", &leaks.conclusion);
    }
    for note in report.captures.iter().flat_map(|c| &c.servers).flat_map(|s| &s.notes) {
        text.push('\n');
        wrap(&mut text, "note: ", note);
    }
    text
}

/// Every finding with its episodes and evidence.
pub(crate) fn phantoms(report: &Report) -> String {
    let mut text = summary(report);
    for capture in &report.captures {
        for server in &capture.servers {
            let _ = writeln!(text, "\n{}  ({})", server.url, server.population_label);
            server_lines(&mut text, server);
        }
    }
    text
}

fn server_lines(text: &mut String, server: &ServerReport) {
    let _ = writeln!(
        text,
        "  {} of {} samples judged; highest report {}",
        server.judged,
        server.samples,
        server.reported_peak.map_or("unavailable".to_owned(), thousands)
    );
    if let Some(last) = &server.last {
        let peak = |magnitude: Magnitude| magnitude.peak.map_or("–".to_owned(), thousands);
        let line = format!(
            "at the end {} reported, {} held by the kernel; at most {} phantoms, {} reverse phantoms",
            thousands(last.reported),
            if last.kernel_high == last.kernel_low {
                thousands(last.kernel_low)
            } else {
                format!("{}–{}", thousands(last.kernel_low), thousands(last.kernel_high))
            },
            peak(server.phantoms),
            peak(server.reverse_phantoms)
        );
        wrap(text, "  ", &line);
    }
    for tally in server.unavailable.iter().chain(&server.inconclusive) {
        let _ = writeln!(text, "  {} not judged: {}", tally.count, printable(&tally.why));
    }
    for finding in &server.findings {
        finding_lines(text, finding);
    }
}

fn finding_lines(text: &mut String, finding: &Finding) {
    let percent = finding.percent.map_or(String::new(), |percent| format!(" ({percent:.1} %)"));
    let _ = writeln!(
        text,
        "\n  {} × {}{percent}, {} at the end — {}",
        thousands(finding.count),
        finding.kind.words(),
        thousands(finding.at_end),
        finding.certainty.words()
    );
    wrap(text, "    ", finding.kind.meaning());
    match &finding.cause {
        Some(cause) => {
            wrap(text, "    cause: ", &format!("{cause} ({})", finding.cause_certainty.words()));
        }
        None => wrap(text, "    cause: ", "unknown"),
    }
    for episode in &finding.episodes {
        wrap(text, "    ", &episode_line(episode));
    }
    for evidence in &finding.evidence_for {
        wrap(text, "    + ", evidence);
    }
    for evidence in &finding.evidence_against {
        wrap(text, "    − ", evidence);
    }
    if !finding.examples.is_empty() {
        let what = if finding.examples_are_named { "such as" } else { "candidates" };
        for example in &finding.examples {
            let _ = writeln!(
                text,
                "    {what} {}:{} ← {}:{}  {}  cookie {}",
                example.local_address,
                example.local_port,
                example.remote_address,
                example.remote_port,
                printable(&example.state),
                example.cookie
            );
        }
    }
    for step in &finding.next_steps {
        wrap(text, "    next: ", step);
    }
}

pub(crate) fn episode_line(episode: &Episode) -> String {
    let end = if episode.ongoing { "still there at " } else { "gone at " };
    format!(
        "from {} UTC, {end}{}: peak {}, growth {:.1} per minute",
        utc(episode.from_unix_ns),
        utc(episode.to_unix_ns),
        thousands(episode.peak),
        episode.growth_per_minute
    )
}

/// A line for each threshold; nothing without any.
pub(crate) fn threshold_lines(thresholds: &[Threshold]) -> String {
    let mut text = String::new();
    for threshold in thresholds {
        let _ = writeln!(text, "{}", threshold_line(threshold));
        if let Some(why) = undecided(threshold) {
            wrap(&mut text, "    ", why);
        }
    }
    text
}

/// The exit by thresholds alone: crossed before inconclusive.
pub(crate) fn outcome(thresholds: &[Threshold]) -> Outcome {
    state(thresholds).outcome()
}

fn threshold_line(threshold: &Threshold) -> String {
    format!(
        "{} {:32} {:>12}   limit {}",
        mark(threshold.state),
        threshold.name,
        measured(threshold),
        threshold.limit
    )
}

/// What was measured, in its unit.
pub(crate) fn measured(threshold: &Threshold) -> String {
    let unit = threshold.unit;
    match threshold.measured {
        None => "not judged".to_owned(),
        Some(measured) if measured.is_infinite() => "all".to_owned(),
        Some(measured) if unit == "%" => format!("{measured:.1} %"),
        Some(measured) if unit == "ms" => format!("{} ms", milliseconds(measured)),
        Some(measured) if measured.fract() == 0.0 => {
            format!("{} {unit}", thousands(measured as i64)).trim_end().to_owned()
        }
        Some(measured) => format!("{measured:.3} {unit}").trim_end().to_owned(),
    }
}

pub(crate) fn mark(state: VerdictState) -> &'static str {
    match state {
        VerdictState::Held => "✓",
        VerdictState::Warning => "!",
        VerdictState::Crossed => "✗",
        VerdictState::Inconclusive => "?",
    }
}

pub(crate) fn client_sentence(clients: &ClientReport) -> String {
    let matches = &clients.matches;
    let clock = match &matches.clock {
        Some(clock) => format!(
            "; their clock is {:+.3} ms off this host's, ± {:.3} ms{}{}{}",
            clock.offset_ns as f64 / 1e6,
            clock.uncertainty_ns as f64 / 1e6,
            if clock.drift_ppm == 0.0 {
                String::new()
            } else {
                format!(", gaining {:.0} millionths", clock.drift_ppm)
            },
            if clock.steady { "" } else { ", and not steady" },
            match clock.told_by {
                ToldBy::Connections => "",
                ToldBy::Starts => ", told only from when attempts began",
            }
        ),
        None => String::new(),
    };
    let count = |count: Option<u64>| count.map_or("–".to_owned(), |n| thousands(n as i64));
    let mut text = format!(
        "{} attempted by the clients' own word: {} successful, {} failed",
        count(clients.attempted),
        count(clients.successful),
        count(clients.failed)
    );
    if matches.matched + matches.unmatched > 0 {
        text.push_str(&format!(
            "; {} found in the capture by their address, {} not found, {} without an address",
            thousands(matches.matched as i64),
            thousands(matches.unmatched as i64),
            thousands(matches.without_address as i64)
        ));
    }
    text.push_str(&clock);
    text.push('.');
    text
}

/// Names come from files and processes: what would steer a terminal is shown as `?`.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Words wrapped to the width, later lines indented below the first one's text.
pub(crate) fn wrap(text: &mut String, prefix: &str, content: &str) {
    let indent = " ".repeat(prefix.chars().count());
    let mut line = prefix.to_owned();
    let mut fresh = true;
    for word in printable(content).split_whitespace() {
        if !fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line.clone_from(&indent);
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}
