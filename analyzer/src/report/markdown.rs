//! The report for a pull request.

use std::fmt::Write;

use crate::client::report::ClientReport;
use crate::clock::utc;
use crate::input::recording::loss_words;
use crate::report::client_text::{latencies, milliseconds, rows};
use crate::report::handshake::HandshakeReport;
use crate::report::handshake_text;
use crate::report::leak_markdown;
use crate::report::model::{CaptureReport, Finding, Report, ServerReport, Threshold};
use crate::report::text::{client_sentence, episode_line, mark, measured, printable};
use crate::report::verdict::{capitalised, thousands};
use crate::threshold::undecided;

pub(crate) fn render(report: &Report) -> String {
    let mut text =
        format!("# {} {}\n\n", mark(report.verdict.state), escape(&report.verdict.headline));
    for sentence in &report.verdict.sentences {
        let _ = writeln!(text, "{}\n", escape(sentence));
    }
    threshold_table(&mut text, &report.thresholds);
    for capture in &report.captures {
        capture_section(&mut text, capture);
    }
    if let Some(clients) = &report.clients {
        client_section(&mut text, clients);
    }
    let _ = writeln!(text, "\n---\n`{}`", report.command_line.join(" ").replace('`', "'"));
    text
}

/// Each with what was measured; below, why some decide nothing.
pub(super) fn threshold_table(text: &mut String, thresholds: &[Threshold]) {
    text.push_str("| | threshold | measured | limit |\n| --- | --- | ---: | ---: |\n");
    for threshold in thresholds {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            mark(threshold.state),
            escape(&threshold.name),
            measured(threshold),
            escape(&threshold.limit)
        );
    }
    let open = thresholds.iter().filter_map(|one| Some((one, undecided(one)?)));
    for (index, (threshold, why)) in open.enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}- {}: {}", escape(&threshold.name), escape(why));
    }
}

fn capture_section(text: &mut String, capture: &CaptureReport) {
    let _ = writeln!(
        text,
        "\n## {}\n\nHost {}, kernel {}, {} UTC to {} UTC, {} connections.",
        escape(&capture.name),
        escape(&capture.host),
        escape(&capture.kernel),
        utc(capture.started_unix_ns),
        utc(capture.ended_unix_ns),
        thousands(capture.connections.total as i64)
    );
    for server in &capture.servers {
        server_section(text, server);
    }
    if let Some(handshakes) = &capture.handshakes {
        handshake_section(text, handshakes);
    }
    if let Some(leaks) = &capture.leaks {
        text.push_str("\n### Leaks\n\n");
        leak_markdown::table(text, leaks);
    }
    if !capture.connections.by_service.is_empty() {
        text.push_str(
            "\n### Connections\n\n| container | port | role | connections | established | open at end |\n\
             | --- | ---: | --- | ---: | ---: | ---: |\n",
        );
        for service in &capture.connections.by_service {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                escape(&service.container),
                service.port,
                service.role,
                service.connections,
                service.established,
                service.open_at_end
            );
        }
    }
    let quality = &capture.quality;
    let _ = writeln!(text, "\n### Data quality\n\n- backend `{}`", escape(&quality.backend));
    for line in quality_lines(capture) {
        let _ = writeln!(text, "- {}", escape(&line));
    }
}

/// What may be missing, one line each; a line that says so if nothing is.
pub(crate) fn quality_lines(capture: &CaptureReport) -> Vec<String> {
    let quality = &capture.quality;
    // What was lost while it was recorded has a line of its own below.
    let is_loss = |told: &&String| quality.losses.iter().any(|loss| told.contains(&loss.reason));
    let mut lines: Vec<String> =
        quality.degraded.iter().filter(|told| !is_loss(told)).cloned().collect();
    if quality.cut_off {
        lines.push("the recording did not end by itself: it was killed, or still runs".to_owned());
    }
    for table in &quality.truncated_tables {
        lines.push(format!("{}: read up to byte {}", table.table, table.at_byte));
    }
    for loss in &quality.losses {
        lines.push(format!(
            "{} from {} to {} UTC",
            loss_words(loss.count, &loss.reason),
            utc(loss.from_unix_ns),
            utc(loss.to_unix_ns)
        ));
    }
    for step in &quality.clock_steps {
        let direction = if step.by_ns < 0 { "back" } else { "forward" };
        lines.push(format!(
            "the clock was set {direction} by {:.1} s up to {:.1} s before {} UTC, or the host slept: \
             times before and after cannot be held against each other; durations are not affected",
            step.by_ns.unsigned_abs() as f64 / 1e9,
            step.within_ns as f64 / 1e9,
            utc(step.at_unix_ns),
        ));
    }
    if lines.is_empty() {
        lines.push("nothing was lost, nothing is known to be missing".to_owned());
    }
    if let Some(drift) = quality.worst_drift {
        lines.push(format!(
            "greatest drift between the probe's and the kernel's own count: {drift}"
        ));
    }
    if let Some(handshakes) = capture.handshakes.as_ref().filter(|found| found.links.linked > 0) {
        let links = &handshakes.links;
        lines.push(format!("{} of {} links between legs are certain", links.certain, links.linked));
    }
    lines
}

fn server_section(text: &mut String, server: &ServerReport) {
    let _ = writeln!(
        text,
        "\n### {}\n\n{} of {} samples judged against {}.",
        escape(&server.url),
        server.judged,
        server.samples,
        escape(&server.population_label)
    );
    for note in &server.notes {
        let _ = writeln!(text, "\n> {}", escape(note));
    }
    for finding in &server.findings {
        finding_section(text, finding);
    }
}

fn finding_section(text: &mut String, finding: &Finding) {
    let percent = finding.percent.map_or(String::new(), |percent| format!(" ({percent:.1} %)"));
    let _ = writeln!(
        text,
        "\n#### {} × {}{percent}\n\n{}, {}. At the end: {}.",
        thousands(finding.count),
        finding.kind.words(),
        capitalised(finding.kind.meaning()),
        finding.certainty.words(),
        thousands(finding.at_end)
    );
    match &finding.cause {
        Some(cause) => {
            let _ = writeln!(
                text,
                "\n**Cause ({}):** {}",
                finding.cause_certainty.words(),
                escape(cause)
            );
        }
        None => text.push_str("\n**Cause:** unknown\n"),
    }
    text.push('\n');
    for episode in &finding.episodes {
        let _ = writeln!(text, "- {}", episode_line(episode));
    }
    for evidence in &finding.evidence_for {
        let _ = writeln!(text, "- for: {}", escape(evidence));
    }
    for evidence in &finding.evidence_against {
        let _ = writeln!(text, "- against: {}", escape(evidence));
    }
    for step in &finding.next_steps {
        let _ = writeln!(text, "- next: {}", escape(step));
    }
    if !finding.examples.is_empty() {
        let what = if finding.examples_are_named { "such as" } else { "candidate" };
        let _ = writeln!(
            text,
            "\n| {what} (remote) | local | state | cookie |\n| --- | --- | --- | ---: |"
        );
        for example in &finding.examples {
            let _ = writeln!(
                text,
                "| {}:{} | {}:{} | {} | {} |",
                example.remote_address,
                example.remote_port,
                example.local_address,
                example.local_port,
                escape(&example.state),
                example.cookie
            );
        }
    }
}

fn handshake_section(text: &mut String, report: &HandshakeReport) {
    let _ = writeln!(text, "\n### Handshakes\n\n{}", escape(&handshake_text::sentence(report)));
    for ranked in &report.causes {
        let cause = &ranked.cause;
        let _ = writeln!(
            text,
            "\n#### {} × {} ({:.1} % of failures)\n\n{}, {}.\n",
            thousands(cause.count as i64),
            escape(cause.name),
            ranked.percent,
            escape(&capitalised(&cause.summary)),
            cause.certainty.words()
        );
        for evidence in &cause.evidence_for {
            let _ = writeln!(text, "- for: {}", escape(evidence));
        }
        for evidence in &cause.evidence_against {
            let _ = writeln!(text, "- against: {}", escape(evidence));
        }
        if let (Some(other), Some(decides)) = (cause.or, cause.would_decide) {
            let _ = writeln!(text, "- or: {other}; what would decide: {decides}");
        }
        let _ = writeln!(text, "- next: {}", escape(cause.next_step));
    }
    text.push_str("\n| container | port | role | outcome | attempts | share |\n| --- | ---: | --- | --- | ---: | ---: |\n");
    for service in &report.services {
        for outcome in &service.outcomes {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.1} % |",
                escape(&service.container),
                service.port,
                service.role,
                escape(&outcome.outcome),
                outcome.count,
                outcome.percent
            );
        }
    }
}

fn client_section(text: &mut String, clients: &ClientReport) {
    let _ = writeln!(text, "\n## Clients\n\n{}", escape(&client_sentence(clients)));
    text.push_str("\n| | clients say | kernel saw |\n| --- | ---: | ---: |\n");
    for (name, client, kernel) in rows(clients) {
        let _ = writeln!(text, "| {name} | {client} | {kernel} |");
    }
    text.push_str("\n| ms | min | mean | p50 | p95 | p99 | max |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (name, found) in latencies(clients) {
        let _ = write!(text, "| {name} ");
        for value in
            [found.min_ms, found.mean_ms, found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms]
        {
            let _ = write!(text, "| {} ", value.map_or("–".to_owned(), milliseconds));
        }
        text.push_str("|\n");
    }
    if !clients.errors.is_empty() {
        text.push_str("\n| error | count |\n| --- | ---: |\n");
    }
    for error in &clients.errors {
        let _ = writeln!(text, "| {} | {} |", escape(&error.kind), error.count);
    }
    if !clients.matches.views.is_empty() {
        text.push_str(
            "\n| the client says | the kernel saw | connections |\n| --- | --- | ---: |\n",
        );
        for view in &clients.matches.views {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                escape(&view.client),
                escape(&view.kernel),
                view.count
            );
        }
    }
    for remark in clients.remarks.iter().chain(&clients.limits) {
        let _ = writeln!(text, "\n> {}", escape(remark));
    }
    for bad in &clients.unreadable_lines {
        let _ =
            writeln!(text, "\n> {}, line {}: {}", escape(&bad.file), bad.line, escape(&bad.why));
    }
}

/// Text from elsewhere must not become markup, or break out of its table.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '#' | '\\' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}
