//! Handshakes for a terminal.

use std::fmt::Write;

use crate::clock::utc_time;
use crate::report::handshake::{HandshakeReport, RankedCause, ServiceHandshakes};
use crate::report::text::wrap;
use crate::report::verdict::{capitalised, plural, thousands};

pub(crate) fn render(report: &HandshakeReport) -> String {
    let mut text = String::new();
    wrap(&mut text, "", &sentence(report));
    if !report.causes.is_empty() {
        text.push_str("\nCauses\n");
        for cause in &report.causes {
            cause_lines(&mut text, cause);
        }
    }
    for service in &report.services {
        service_lines(&mut text, service);
    }
    text
}

/// `6,820 of 12,000 attempts failed (56.8 %) …`
pub(crate) fn sentence(report: &HandshakeReport) -> String {
    if report.attempts == 0 {
        return format!(
            "No handshake attempts in {}: {} plain HTTP requests, {} connections of which nothing is \
             known. Record with --websocket PORT to count every connection to a port as an attempt.",
            report.capture,
            thousands(report.plain_http as i64),
            thousands(report.untold as i64)
        );
    }
    let mut text = format!(
        "{} of {} failed ({:.1} %); {} upgraded, {} still waiting.",
        thousands(report.failed as i64),
        plural(report.attempts as i64, "attempt"),
        report.failed_percent.unwrap_or(0.0),
        thousands(report.upgraded as i64),
        thousands(report.open as i64)
    );
    if report.syn_cookies > 0 {
        let _ = write!(
            text,
            " {} came about by SYN cookies: the queue of waiting SYNs was full.",
            thousands(report.syn_cookies as i64)
        );
    }
    if report.plain_http > 0 {
        let _ = write!(
            text,
            " {} that asked for no upgrade are not counted.",
            plural(report.plain_http as i64, "request")
        );
    }
    if report.links.linked > 0 {
        let _ = write!(
            text,
            " {} were followed to a shard, {} of them for certain; {} never got that far.",
            thousands(report.links.linked as i64),
            thousands(report.links.certain as i64),
            thousands(report.links.never_tried as i64)
        );
    }
    text
}

fn cause_lines(text: &mut String, ranked: &RankedCause) {
    let cause = &ranked.cause;
    let _ = writeln!(
        text,
        "\n  {} × {} ({:.1} % of failures) — {}",
        thousands(cause.count as i64),
        cause.name,
        ranked.percent,
        cause.certainty.words()
    );
    wrap(text, "    ", &capitalised(&cause.summary));
    for evidence in &cause.evidence_for {
        wrap(text, "    + ", evidence);
    }
    for evidence in &cause.evidence_against {
        wrap(text, "    − ", evidence);
    }
    if let (Some(other), Some(decides)) = (cause.or, cause.would_decide) {
        wrap(text, "    or ", &format!("{other}; what would decide: {decides}"));
    }
    for pair in &ranked.examples {
        let _ = writeln!(
            text,
            "    such as {}:{} → {}:{}  cookie {}",
            pair.remote_address, pair.remote_port, pair.local_address, pair.local_port, pair.cookie
        );
    }
    if !cause.next_step.is_empty() {
        wrap(text, "    next: ", cause.next_step);
    }
}

fn service_lines(text: &mut String, service: &ServiceHandshakes) {
    let _ = writeln!(
        text,
        "\n{} · port {} · {}: {}",
        service.container,
        service.port,
        service.role,
        plural(service.attempts as i64, "attempt")
    );
    for stage in &service.funnel {
        let share = 100.0 * stage.count as f64 / service.attempts.max(1) as f64;
        let bar = "█".repeat((share / 5.0).round() as usize);
        let count = thousands(stage.count as i64);
        let _ = writeln!(text, "  {:18} {count:>9} {share:5.1} % {bar}", stage.stage);
    }
    if !service.steps.is_empty() {
        let _ = writeln!(
            text,
            "  {:33}{:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms, of upgraded", "p50", "p90", "p99", "p99.9", "max"
        );
    }
    for step in &service.steps {
        let ms = |us: f64| format!("{:9.3}", us / 1e3);
        let name = format!("{} → {}", step.from, step.to);
        let _ = writeln!(
            text,
            "  {name:33}{} {} {} {} {}",
            ms(step.p50_us),
            ms(step.p90_us),
            ms(step.p99_us),
            ms(step.p999_us),
            ms(step.max_us)
        );
    }
    for outcome in &service.outcomes {
        let _ = writeln!(
            text,
            "  {:34} {:>9} {:5.1} %  {}–{}",
            outcome.outcome,
            thousands(outcome.count as i64),
            outcome.percent,
            utc_time(outcome.first_unix_ns),
            utc_time(outcome.last_unix_ns)
        );
    }
}
