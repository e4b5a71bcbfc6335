//! The leaks' section of the page.

use maud::{Markup, html};

use crate::clock::utc;
use crate::leak::report::{Followed, LeakReport, Level};
use crate::report::chart::{Plot, Series};
use crate::report::html::{breakable, run_again};
use crate::report::leak_text::{is_in_checkpoints, minutes, number, signed};
use crate::report::verdict::capitalised;

pub(crate) fn section(leaks: &LeakReport, command: &str) -> Markup {
    html! {
        h2 { "What grows" }
        section.card {
            p { (leaks.conclusion) }
            div.scroll role="group" tabindex="0" aria-label="what grows" { table {
                thead { tr {
                    th { "metric" } th.n { "baseline" } th.n { "final" } th.n { "growth" }
                    th.n { "rate per min" } th.n { "95 % within" } th.n { "target" } th.status { "status" }
                } }
                tbody { @for followed in &leaks.followed { (row(followed)) } }
            } }
            @for sentence in &leaks.related { p.small { (capitalised(sentence)) "." } }
            @for followed in &leaks.followed {
                @if followed.trend.growth != 0.0 || followed.level > Level::Ok { (plot(followed)) }
            }
            (stability(leaks))
            details {
                summary { "Checkpoints" }
                div.scroll role="group" tabindex="0" aria-label="checkpoints" { (checkpoints(leaks)) }
            }
            (run_again(command))
        }
    }
}

fn row(followed: &Followed) -> Markup {
    let trend = &followed.trend;
    let rate = |rate: Option<f64>| rate.map_or("–".to_owned(), |rate| format!("{rate:+.1}"));
    html! {
        tr {
            td.metric { (breakable(&followed.name)) br; span.soft.small { (breakable(&followed.source)) } }
            td.n { (number(trend.baseline)) } td.n { (number(trend.last)) }
            td.n { (signed(trend.growth)) } td.n { (rate(trend.per_minute)) }
            td.n { (rate(trend.low_per_minute)) " to " (rate(trend.high_per_minute)) }
            td.n { (followed.target_per_minute.map_or("–".to_owned(), |target| format!("< {target}"))) }
            td.status { (followed.level.words()) ", " (trend.shape.words()) }
        }
    }
}

fn plot(followed: &Followed) -> Markup {
    let class = if followed.level > Level::Ok { "phantom" } else { "kernel" };
    let title = format!("{} over time", followed.name);
    // What is counted is whole; of shares and sizes two decimals are worth a line.
    let decimals = if followed.points.iter().all(|point| point.1.fract() == 0.0) { 0 } else { 2 };
    let one = f64::from(10_u32.pow(decimals));
    let plot = Plot {
        title: &title,
        at_unix_ns: followed.points.iter().map(|point| point.0).collect(),
        series: vec![Series {
            name: &followed.name,
            class,
            values: followed.points.iter().map(|point| (point.1 * one).round() as i64).collect(),
            high: None,
        }],
        decimals,
        births: &[],
        tall: false,
    };
    html! { @if let Some(plot) = plot.render() { (plot) } }
}

fn stability(leaks: &LeakReport) -> Markup {
    let found = &leaks.stability;
    html! {
        p.small {
            b { "Stability. " }
            (found.ends_text()) ", " (found.http_errors) " of " (found.requests)
            " requests failed, " (found.health_text()) ", observed for "
            (format!("{:.1}", found.observed_s / 60.0)) " min" (found.up_text())
            @if found.stopped_early { ", stopped early" } "."
        }
        @for gap in &leaks.gaps {
            p.note.small {
                "Nothing from " (gap.source) " between " (utc(gap.from_unix_ns)) " and "
                (utc(gap.to_unix_ns)) " UTC."
            }
        }
        @for bad in &leaks.unreadable_lines {
            p.note.small { (bad.file) ", line " (bad.line) ": " (bad.why) }
        }
    }
}

fn checkpoints(leaks: &LeakReport) -> Markup {
    let columns = || leaks.followed.iter().filter(|followed| is_in_checkpoints(&followed.name));
    html! {
        table {
            thead { tr {
                th.n { "after" }
                @for followed in columns() { th.n { (followed.name) } }
            } }
            tbody {
                @for checkpoint in &leaks.checkpoints {
                    tr {
                        td.n {
                            @if checkpoint.number == 0 { "baseline" }
                            @else { (minutes(checkpoint.minutes)) }
                        }
                        @for followed in columns() {
                            td.n {
                                @match checkpoint.values.iter().find(|v| v.name == followed.name) {
                                    Some(value) => (number(value.value)),
                                    None => "–",
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
