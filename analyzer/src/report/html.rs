//! The report as one HTML file: no network, no fonts, readable without JavaScript.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::clock::utc;
use crate::join::Basis;
use crate::report::again::{Again, CLIENTS, HANDSHAKES, LEAKS, PHANTOMS, shell_words};
use crate::report::chart::{Plot, Series, thinned};
use crate::report::markdown::quality_lines;
use crate::report::model::{
    CaptureReport, Finding, Point, Report, ServerReport, Threshold, VerdictState,
};
use crate::report::text::{episode_line, mark, measured};
use crate::report::verdict::{capitalised, thousands};
use crate::report::{client_html, handshake_html, leak_html};
use crate::threshold::undecided;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(crate) fn render(report: &Report) -> String {
    let verdict = &report.verdict;
    let again = Again::new(&report.command_line);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (verdict.headline) " · groundtruth" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (brand(report))
                    section class={ "card hero " (tone(verdict.state)) } {
                        span.verdict { (mark(verdict.state)) " " (state_words(verdict.state)) }
                        h1 { (capitalised(&verdict.headline)) }
                        @for sentence in &verdict.sentences { p.say { (sentence) } }
                        ul.limits {
                            @for threshold in &report.thresholds { (limit(threshold)) }
                        }
                    }
                    @for capture in &report.captures { (capture_section(capture, &again)) }
                    @if let Some(clients) = &report.clients {
                        (client_html::section(clients, &again.of_all("clients", &CLIENTS)))
                    }
                    @for capture in &report.captures { (quality_section(capture)) }
                    (method_section(report, &again))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn brand(report: &Report) -> Markup {
    html! {
        div.brand {
            b { "groundtruth" }
            span {
                @for (index, capture) in report.captures.iter().enumerate() {
                    @if index > 0 { " · " }
                    (capture.host) ", " (&utc(capture.started_unix_ns)[..19]) " to "
                    (&utc(capture.ended_unix_ns)[11..19]) " UTC"
                }
            }
        }
    }
}

fn tone(state: VerdictState) -> &'static str {
    match state {
        VerdictState::Held => "held",
        VerdictState::Warning => "warning",
        VerdictState::Crossed => "crossed",
        VerdictState::Inconclusive => "inconclusive",
    }
}

fn state_words(state: VerdictState) -> &'static str {
    match state {
        VerdictState::Held => "every threshold held",
        VerdictState::Warning => "every threshold held, with a warning",
        VerdictState::Crossed => "a threshold was crossed",
        VerdictState::Inconclusive => "inconclusive",
    }
}

fn limit(threshold: &Threshold) -> Markup {
    html! {
        li class=(tone(threshold.state)) {
            span.mark { (mark(threshold.state)) } span.name { (threshold.name) }
            b { (measured(threshold)) }
            span.soft.small { "limit " (threshold.limit) }
            @if let Some(why) = undecided(threshold) { span.why.small { (capitalised(why)) "." } }
        }
    }
}

/// The command that prints a section's figures.
pub(crate) fn run_again(command: &str) -> Markup {
    html! { p.run { "Prints the same: " (one_command(command)) } }
}

/// A command that is broken between its words only: `--` at the end of a line is none.
fn one_command(command: &str) -> Markup {
    html! {
        code {
            @for (index, word) in command.split(' ').enumerate() {
                @if index > 0 { " " }
                span.word { (word) }
            }
        }
    }
}

fn capture_section(capture: &CaptureReport, again: &Again<'_>) -> Markup {
    let command = |subcommand, options: &[&str]| again.command(subcommand, &capture.name, options);
    html! {
        @for server in &capture.servers {
            (server_section(server, &command("phantoms", &PHANTOMS)))
        }
        @if let Some(handshakes) = &capture.handshakes {
            (handshake_html::section(handshakes, &command("handshakes", &HANDSHAKES)))
        }
        @if let Some(leaks) = &capture.leaks {
            (leak_html::section(leaks, &command("leaks", &LEAKS)))
        }
        @if !capture.connections.by_service.is_empty() {
            h2 { "Connections in " (capture.name) }
            section.card {
                p.soft.small {
                    (thousands(capture.connections.total as i64))
                    " connections were recorded, whatever the server says of them."
                }
                div.scroll role="group" tabindex="0" aria-label="connections by service" { table {
                    thead { tr {
                        th { "container" } th.n { "port" } th { "role" } th.n { "connections" }
                        th.n { "established" } th.n { "open at the end" }
                    } }
                    tbody {
                        @for service in &capture.connections.by_service {
                            tr {
                                td { (service.container) } td.n { (service.port) } td { (service.role) }
                                td.n { (thousands(service.connections as i64)) }
                                td.n { (thousands(service.established as i64)) }
                                td.n { (thousands(service.open_at_end as i64)) }
                            }
                        }
                    }
                } }
                (run_again(&command("connections", &["--summary"])))
            }
        }
    }
}

fn server_section(server: &ServerReport, command: &str) -> Markup {
    let points = thinned(&server.series);
    let births: Vec<_> =
        server.findings.iter().flat_map(|finding| finding.births.iter().cloned()).collect();
    let column = |of: fn(&Point) -> i64| -> Vec<i64> { points.iter().map(of).collect() };
    let times = || column(|point| point.at_unix_ns);
    let counts = Plot {
        title: "Connections: what the server reports, and what the kernel holds",
        at_unix_ns: times(),
        series: vec![
            Series {
                name: "kernel",
                class: "kernel",
                values: column(|point| point.kernel_low),
                high: Some(column(|point| point.kernel_high)),
            },
            Series {
                name: "reported",
                class: "reported",
                values: column(|point| point.reported),
                high: None,
            },
        ],
        decimals: 0,
        births: &births,
        tall: true,
    };
    let differences = Plot {
        title: "Outside what the kernel counted",
        at_unix_ns: times(),
        series: vec![
            Series {
                name: "phantoms",
                class: "phantom",
                values: vec![0; points.len()],
                high: Some(column(|point| point.phantoms)),
            },
            Series {
                name: "reverse phantoms",
                class: "reverse",
                values: vec![0; points.len()],
                high: Some(column(|point| point.reverse_phantoms)),
            },
        ],
        decimals: 0,
        births: &births,
        tall: false,
    };
    html! {
        h2 { (server.url) }
        section.card {
            p.soft.small {
                "Held against the " (server.population_label) "; "
                (server.judged) " of " (server.samples) " health samples judged."
            }
            @if let Some(last) = &server.last {
                div.tiles {
                    div.reported style="--tone:var(--reported)" {
                        span.soft.small { "reported at the end" } b { (thousands(last.reported)) }
                    }
                    div style="--tone:var(--kernel)" {
                        span.soft.small { "held by the kernel" }
                        b {
                            (thousands(last.kernel_low))
                            @if last.kernel_high != last.kernel_low { "–" (thousands(last.kernel_high)) }
                        }
                    }
                    div style="--tone:var(--bad)" {
                        span.soft.small { "phantoms, at most" }
                        b { (server.phantoms.peak.map_or("–".to_owned(), thousands)) }
                    }
                    div style="--tone:var(--reverse)" {
                        span.soft.small { "reverse phantoms, at most" }
                        b { (server.reverse_phantoms.peak.map_or("–".to_owned(), thousands)) }
                    }
                }
            }
            @if let Some(plot) = counts.render() { (plot) }
            @if points.iter().any(|point| point.phantoms + point.reverse_phantoms > 0) {
                @if let Some(plot) = differences.render() { (plot) }
                p.soft.small {
                    @if !births.is_empty() { "Shaded: when their number rose. " }
                    "While connections come and go, only as many are drawn as are certain. Times are UTC."
                }
            }
            @for note in &server.notes { p.note { (capitalised(note)) "." } }
            @for tally in server.unavailable.iter().chain(&server.inconclusive) {
                p.note { "Samples not judged: " (tally.count) " (" (tally.why) ")." }
            }
            @for finding in &server.findings { (finding_section(finding)) }
            (run_again(command))
        }
    }
}

fn finding_section(finding: &Finding) -> Markup {
    html! {
        article.finding {
            header {
                h3 { (thousands(finding.count)) " × " (finding.kind.words()) }
                @if let Some(percent) = finding.percent {
                    span.badge { (format!("{percent:.1} % of reported")) }
                }
                span.badge { (finding.certainty.words()) }
                span.badge { (thousands(finding.at_end)) " at the end" }
            }
            p.soft.small { (capitalised(finding.kind.meaning())) "." }
            p {
                @match &finding.cause {
                    Some(cause) => {
                        b { "Cause (" (finding.cause_certainty.words()) "): " } (cause) "."
                    }
                    None => { b { "Cause: unknown. " } "Nothing in the recording explains them." }
                }
            }
            ul.evidence {
                @for line in &finding.evidence_for { li.for { (line) } }
                @for line in &finding.evidence_against { li.against { (line) } }
                @for line in &finding.next_steps { li.next { (line) } }
            }
            @for episode in &finding.episodes {
                p.soft.small { (capitalised(&episode_line(episode))) "." }
            }
            @if !finding.examples.is_empty() {
                p.soft.small {
                    @if finding.examples_are_named { "Such as these; " } @else { "Candidates; " }
                    "cookies are those of " code { "ss -e" } ":"
                }
                div.scroll role="group" tabindex="0" aria-label="examples" { table {
                    thead { tr {
                        th { "remote" } th { "local" } th { "state" } th { "left established (UTC)" }
                        th.n { "cookie" }
                    } }
                    tbody {
                        @for example in &finding.examples {
                            tr {
                                td { code { (example.remote_address) ":" (example.remote_port) } }
                                td { code { (example.local_address) ":" (example.local_port) } }
                                td { (example.state) }
                                td { (example.left_established_unix_ns.map_or("–".to_owned(), utc)) }
                                td.n { (example.cookie) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

/// What stands between backticks is code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A long name, which may go on in the next line where one of its words ends.
pub(crate) fn breakable(text: &str) -> Markup {
    html! {
        @for part in text.split_inclusive(['_', '/', ':']) {
            @for (index, word) in part.split('.').enumerate() {
                @if index > 0 { wbr; "." }
                (word)
            }
            wbr;
        }
    }
}

fn quality_section(capture: &CaptureReport) -> Markup {
    html! {
        h2 { "How good the data is" }
        section.card {
            p.soft.small {
                (capture.name) ": recorded on " (capture.host) ", kernel " (capture.kernel)
                ", probe " (capture.probe_version) ", backend " (capture.quality.backend) "."
            }
            ul.evidence {
                @for line in quality_lines(capture) { li.next { (with_code(&line)) } }
                @for server in &capture.servers {
                    @if server.agreement.compared > 0 {
                        li.next {
                            "connections and kernel counters agree in "
                            (server.agreement.equal) " of " (server.agreement.compared) " seconds ("
                            (server.population_label) ")"
                        }
                    }
                }
            }
            @if !capture.quality.hooks.is_empty() {
                details {
                    summary { "Hooks in use" }
                    pre { (capture.quality.hooks.join("\n")) }
                }
            }
        }
    }
}

fn method_section(report: &Report, again: &Again<'_>) -> Markup {
    let servers = || report.captures.iter().flat_map(|capture| &capture.servers);
    let settle_ms = servers().map(|server| server.settle_ms).max().unwrap_or(0);
    html! {
        h2 { "How it was measured" }
        section.card {
            p {
                "A health sample is an interval, from the request's start (less " (settle_ms)
                " ms, the time in which a server may notice a change) to the end of the answer. What the "
                "server reported is held against the lowest and the highest count of established "
                "connections in that interval; only what lies outside counts, and only what lasts for more "
                "than one sample."
            }
            @for server in servers() {
                p.small {
                    b { (server.url) } ": "
                    @match server.basis {
                        Basis::Connections => { "counts from every connection's own times, exact to the nanosecond. " }
                        Basis::Poll => { "counts that the probe saw during each poll. " }
                        Basis::Counts => { "the kernel's counters, read once a second. " }
                    }
                    (server.left_out_health_polls) " connections of the health poller were left out by their "
                    "address and port, " (server.left_out_http) " plain HTTP requests by what they sent."
                }
            }
            p.small {
                "Counts alone cannot show a leak and a double decrement that cancel each other out; a "
                "list of the server's own connections would."
            }
            p.soft.small { "This report: " (one_command(&again.whole())) }
            @for capture in &report.captures {
                p.soft.small { "The recording: " (one_command(&shell_words(&capture.command_line))) }
            }
        }
    }
}
