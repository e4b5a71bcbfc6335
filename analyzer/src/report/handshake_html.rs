//! The handshake section of the HTML report.

use maud::{Markup, html};

use crate::clock::utc;
use crate::handshake::outcome::is_failure;
use crate::report::chart::{Plot, Series};
use crate::report::client_text::milliseconds;
use crate::report::handshake::{HandshakeReport, RankedCause, ServiceHandshakes};
use crate::report::handshake_text::sentence;
use crate::report::html::run_again;
use crate::report::verdict::{capitalised, thousands};

/// A length of time with digits that tell.
fn words(ns: i64) -> String {
    match ns {
        ..100_000_000 => format!("{} ms", milliseconds(ns as f64 / 1e6)),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

pub(crate) fn section(report: &HandshakeReport, command: &str) -> Markup {
    let column = |of: fn(&crate::report::handshake::Bucket) -> i64| -> Vec<i64> {
        report.over_time.iter().map(of).collect()
    };
    let interval_ns = match report.over_time.as_slice() {
        [first, second, ..] => second.at_unix_ns - first.at_unix_ns,
        _ => 0,
    };
    let title = format!("Attempts per {}, and those that failed", words(interval_ns));
    let plot = Plot {
        title: &title,
        at_unix_ns: column(|bucket| bucket.at_unix_ns),
        series: vec![
            Series {
                name: "attempts",
                class: "kernel",
                values: column(|bucket| bucket.attempts as i64),
                high: None,
            },
            Series {
                name: "failed",
                class: "phantom",
                values: vec![0; report.over_time.len()],
                high: Some(column(|bucket| bucket.failed as i64)),
            },
        ],
        decimals: 0,
        births: &[],
        tall: false,
    };
    let failed = |service: &ServiceHandshakes| -> usize {
        let failures = service.outcomes.iter().filter(|outcome| is_failure(&outcome.outcome));
        failures.map(|outcome| outcome.count).sum()
    };
    // The first of them, where none has failed.
    let worst = report.services.iter().map(failed).max().unwrap_or(0);
    let opened = report.services.iter().position(|service| failed(service) == worst);
    html! {
        h2 { "Handshakes" }
        section.card {
            p { (sentence(report)) }
            @if let Some(plot) = plot.render() { (plot) }
            @for cause in &report.causes { (cause_article(cause)) }
            @for (index, service) in report.services.iter().enumerate() {
                (service_part(service, Some(index) == opened))
            }
            (run_again(command))
        }
    }
}

fn cause_article(ranked: &RankedCause) -> Markup {
    let cause = &ranked.cause;
    html! {
        article.finding {
            header {
                h3 { (thousands(cause.count as i64)) " × " (cause.name.replace('_', " ")) }
                span.badge { (format!("{:.1} % of failures", ranked.percent)) }
                span.badge { (cause.certainty.words()) }
            }
            p { (capitalised(&cause.summary)) "." }
            ul.evidence {
                @for line in &cause.evidence_for { li.for { (line) } }
                @for line in &cause.evidence_against { li.against { (line) } }
                @if let (Some(other), Some(decides)) = (cause.or, cause.would_decide) {
                    li.against { "or " (other.replace('_', " ")) "; what would decide: " (decides) }
                }
                @if !cause.next_step.is_empty() { li.next { (cause.next_step) } }
            }
            @if !ranked.examples.is_empty() {
                p.soft.small {
                    "Such as "
                    @for (index, pair) in ranked.examples.iter().enumerate() {
                        @if index > 0 { ", " }
                        code { (pair.remote_address) ":" (pair.remote_port) }
                    }
                }
            }
        }
    }
}

fn service_part(service: &ServiceHandshakes, open: bool) -> Markup {
    let share = |count: usize| 100.0 * count as f64 / service.attempts.max(1) as f64;
    html! {
        details open[open] {
            summary { (service.container) ", port " (service.port) ", " (service.role) }
            div.funnel {
                @for stage in &service.funnel {
                    span { (stage.stage.replace('_', " ")) }
                    span.bar { i style=(format!("width:{:.2}%", share(stage.count))) {} }
                    span.n { (thousands(stage.count as i64)) }
                }
            }
            @if !service.steps.is_empty() {
                div.scroll role="group" tabindex="0" aria-label="times of the steps" { table {
                    thead { tr {
                        th { "of those upgraded, ms" } th.n { "p50" } th.n { "p90" } th.n { "p99" }
                        th.n { "p99.9" } th.n { "max" }
                    } }
                    tbody {
                        @for step in &service.steps {
                            tr {
                                td { (step.from.replace('_', " ")) " → " (step.to.replace('_', " ")) }
                                @for us in [step.p50_us, step.p90_us, step.p99_us, step.p999_us, step.max_us] {
                                    td.n { (format!("{:.3}", us / 1e3)) }
                                }
                            }
                        }
                    }
                } }
            }
            div.scroll role="group" tabindex="0" aria-label="outcomes" { table {
                thead { tr {
                    th { "outcome" } th.n { "attempts" } th.n { "share, %" } th { "first (UTC)" }
                    th { "last (UTC)" }
                } }
                tbody {
                    @for outcome in &service.outcomes {
                        tr {
                            td { (outcome.outcome) }
                            td.n { (thousands(outcome.count as i64)) }
                            td.n { (format!("{:.1}", outcome.percent)) }
                            td { (utc(outcome.first_unix_ns)) }
                            td { (utc(outcome.last_unix_ns)) }
                        }
                    }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_short_time_is_not_zero() {
        let lengths = [2_125_000, 50_000_000, 100_000_000, 2_500_000_000].map(words);
        assert_eq!(lengths, ["2.12 ms", "50.00 ms", "0.10 s", "2.50 s"]);
    }
}
