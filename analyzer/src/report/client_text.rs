//! The clients for a terminal, at most 100 columns.

use std::fmt::Write;

use crate::client::report::ClientReport;
use crate::client::spread::Latency;
use crate::report::text::{client_sentence, printable, wrap};
use crate::report::verdict::thousands;

pub(crate) fn render(report: &ClientReport) -> String {
    let mut text = String::new();
    for file in &report.files {
        let bad = match file.unreadable {
            0 => String::new(),
            n => format!(", {} of them unreadable", thousands(n as i64)),
        };
        let lines = thousands(file.lines as i64);
        let _ = writeln!(text, "{}: {}, {lines} lines{bad}", file.path, file.format.words());
    }
    for bad in &report.unreadable_lines {
        wrap(&mut text, "  ", &format!("{}:{}: {}", bad.file, bad.line, bad.why));
    }
    let _ = writeln!(text, "\n{:24} {:>14} {:>14}", "", "clients say", "kernel saw");
    for (name, client, kernel) in rows(report) {
        let _ = writeln!(text, "{name:24} {client:>14} {kernel:>14}");
    }
    let latencies = latencies(report);
    if latencies.is_empty() {
        text.push_str("\nNo file tells how long anything took.\n");
    } else {
        let _ = writeln!(
            text,
            "\n{:30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "ms", "count", "min", "mean", "p50", "p95", "p99", "max"
        );
    }
    for (name, latency) in latencies {
        latency_line(&mut text, name, &latency);
    }
    if !report.errors.is_empty() {
        text.push_str("\nErrors by kind\n");
        for error in &report.errors {
            wrap(
                &mut text,
                &format!("{:>8} × ", thousands(error.count as i64)),
                &printable(&error.kind),
            );
        }
    }
    if !report.matches.views.is_empty() {
        text.push_str("\nThe same connections, by their address\n");
        for view in &report.matches.views {
            let count = thousands(view.count as i64);
            let line = format!("{} — kernel: {}", view.client, view.kernel);
            wrap(&mut text, &format!("{count:>8} × "), &line);
        }
    }
    if report.matches.clock.is_some() {
        text.push('\n');
        wrap(&mut text, "", &client_sentence(report));
    }
    for remark in &report.remarks {
        wrap(&mut text, "note: ", remark);
    }
    for limit in &report.limits {
        wrap(&mut text, "limit: ", limit);
    }
    text.push('\n');
    text
}

/// Figures that both sides have: name, the clients', the kernel's.
pub(crate) fn rows(report: &ClientReport) -> Vec<(&'static str, String, String)> {
    let dash = || "–".to_owned();
    let count = |value: Option<u64>| value.map_or_else(dash, |n| thousands(n as i64));
    let percent = |value: Option<f64>| value.map_or_else(dash, |p| format!("{p:.2} %"));
    let rate = |value: Option<f64>| value.map_or_else(dash, |rate| format!("{rate:.1}"));
    let kernel = report.kernel.as_ref();
    vec![
        ("attempted", count(report.attempted), count(kernel.map(|k| k.attempted))),
        ("successful", count(report.successful), count(kernel.map(|k| k.successful))),
        ("failed", count(report.failed), count(kernel.map(|k| k.failed))),
        (
            "success rate",
            percent(report.success_percent),
            percent(kernel.and_then(|k| k.success_percent)),
        ),
        (
            "attempts per second",
            rate(report.attempts_per_second),
            rate(kernel.and_then(|k| k.attempts_per_second)),
        ),
        ("messages sent", count(report.messages_sent), dash()),
        ("messages received", count(report.messages_received), dash()),
        ("messages per second", rate(report.messages_per_second), dash()),
        ("bytes to the server", dash(), count(kernel.map(|k| k.bytes_received))),
        ("bytes to the clients", dash(), count(kernel.map(|k| k.bytes_sent))),
    ]
}

/// Every spread that there is, the stages of connecting among them.
pub(crate) fn latencies(report: &ClientReport) -> Vec<(&'static str, Latency)> {
    let mut found = Vec::new();
    let mut add = |name, latency: Option<Latency>| {
        found.extend(latency.map(|latency| (name, latency)));
    };
    add("round trip", report.round_trip);
    add("connect, by the clients", report.connect);
    for stage in &report.matches.stages {
        add(stage.stage, Some(stage.latency));
    }
    add("SYN to answer, all, kernel", report.kernel.as_ref().and_then(|kernel| kernel.connect));
    found
}

fn latency_line(text: &mut String, name: &str, latency: &Latency) {
    let ms = |value: Option<f64>| value.map_or("–".to_owned(), milliseconds);
    let _ = writeln!(
        text,
        "{name:30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        thousands(latency.count as i64),
        ms(latency.min_ms),
        ms(latency.mean_ms),
        ms(latency.p50_ms),
        ms(latency.p95_ms),
        ms(latency.p99_ms),
        ms(latency.max_ms)
    );
}

/// Three digits that matter.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 1.0 => format!("{ms:.2}"),
        ms => format!("{ms:.3}"),
    }
}
