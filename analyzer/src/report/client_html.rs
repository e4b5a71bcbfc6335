//! The clients' section of the page.

use maud::{Markup, html};

use crate::client::report::ClientReport;
use crate::report::client_text::{latencies, milliseconds, rows};
use crate::report::html::run_again;
use crate::report::text::client_sentence;
use crate::report::verdict::{capitalised, thousands};

pub(crate) fn section(clients: &ClientReport, command: &str) -> Markup {
    html! {
        h2 { "What the clients saw" }
        section.card {
            p { (client_sentence(clients)) }
            @for remark in &clients.remarks { p.note { (capitalised(remark)) "." } }
            (figures(clients))
            (times(clients))
            @if !clients.errors.is_empty() {
                div.scroll role="group" tabindex="0" aria-label="errors" { table {
                    thead { tr { th { "error, by the clients' word" } th.n { "count" } } }
                    tbody {
                        @for error in &clients.errors {
                            tr { td { (error.kind) } td.n { (thousands(error.count as i64)) } }
                        }
                    }
                } }
            }
            @if !clients.matches.views.is_empty() {
                div.scroll role="group" tabindex="0" aria-label="what clients and kernel saw" { table {
                    thead { tr {
                        th { "the client says" } th { "the kernel saw" } th.n { "connections" }
                    } }
                    tbody {
                        @for view in &clients.matches.views {
                            tr {
                                td { (view.client) } td { (view.kernel) }
                                td.n { (thousands(view.count as i64)) }
                            }
                        }
                    }
                } }
            }
            @for file in &clients.files {
                p.soft.small {
                    code { (file.path) } ": " (file.format.words()) ", "
                    (thousands(file.lines as i64)) " lines"
                    @if file.unreadable > 0 { ", " (file.unreadable) " of them unreadable" }
                }
            }
            @for bad in &clients.unreadable_lines {
                p.note.small { (bad.file) ", line " (bad.line) ": " (bad.why) }
            }
            @for limit in &clients.limits { p.soft.small { (capitalised(limit)) "." } }
            (run_again(command))
        }
    }
}

fn figures(clients: &ClientReport) -> Markup {
    html! {
        div.scroll role="group" tabindex="0" aria-label="figures" { table {
            thead { tr { th { "figure" } th.n { "clients say" } th.n { "kernel saw" } } }
            tbody {
                @for (name, client, kernel) in rows(clients) {
                    tr { td { (name) } td.n { (client) } td.n { (kernel) } }
                }
            }
        } }
    }
}

/// Round trips, and the time to connect with its stages.
fn times(clients: &ClientReport) -> Markup {
    html! {
        div.scroll role="group" tabindex="0" aria-label="times" { table {
            thead { tr {
                th { "ms" } th.n { "count" } th.n { "min" } th.n { "mean" } th.n { "p50" }
                th.n { "p95" } th.n { "p99" } th.n { "max" }
            } }
            tbody {
                @for (name, found) in latencies(clients) {
                    tr {
                        td { (name) } td.n { (thousands(found.count as i64)) }
                        @for value in [
                            found.min_ms, found.mean_ms, found.p50_ms, found.p95_ms, found.p99_ms,
                            found.max_ms,
                        ] {
                            td.n { (value.map_or("–".to_owned(), milliseconds)) }
                        }
                    }
                }
            }
        } }
        @if clients.matches.stages.iter().any(|stage| stage.across_clocks) {
            p.soft.small {
                "The first and the last stage run from one clock to the other, and are only as sure as "
                "the two are aligned."
            }
        }
    }
}
