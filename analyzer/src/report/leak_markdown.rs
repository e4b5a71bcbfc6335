//! Leaks for a pull request.

use std::fmt::Write;

use crate::clock::utc;
use crate::leak::report::{LeakReport, Level};
use crate::report::leak_text::{number, signed};
use crate::report::markdown::{escape, threshold_table};
use crate::report::model::Threshold;

pub(crate) fn render(report: &LeakReport, thresholds: &[Threshold]) -> String {
    let mut text = format!("## Leaks: {}\n\n", escape(&report.name));
    table(&mut text, report);
    if !thresholds.is_empty() {
        text.push('\n');
        threshold_table(&mut text, thresholds);
    }
    text
}

/// The table of trends, connection reuse, stability, and the conclusion.
pub(crate) fn table(text: &mut String, report: &LeakReport) {
    text.push_str(
        "| Metric | Baseline | Final | Growth | Rate/min | Target | Status |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for followed in &report.followed {
        let trend = &followed.trend;
        let rate = trend.per_minute.map_or("–".to_owned(), |rate| format!("{rate:+.1}"));
        let target = followed.target_per_minute.map_or("–".to_owned(), |t| format!("< {t}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {rate} | {target} | {}, {} |",
            escape(&followed.name),
            number(trend.baseline),
            number(trend.last),
            signed(trend.growth),
            followed.level.words(),
            trend.shape.words()
        );
    }
    let last = |name: &str| report.followed.iter().find(|one| one.name == name);
    let reuse =
        [("pool_idle", "idle pool connections", "> 0"), ("pool_reuse_percent", "reuse, %", "> 80")];
    if reuse.iter().any(|(name, ..)| last(name).is_some()) {
        text.push_str("\n**Connection reuse**\n\n");
        for (name, words, target) in reuse {
            let Some(found) = last(name) else { continue };
            let _ = writeln!(text, "- {words}: {} (target {target})", number(found.trend.last));
        }
    } else {
        text.push_str(
            "\n**Connection reuse**: not known; name a pool's figures with \
             `--series pool_idle=PATH --series pool_reuse_percent=PATH`.\n",
        );
    }
    let stability = &report.stability;
    let _ = writeln!(
        text,
        "\n**Stability**: {}, {} of {} requests failed, {}, observed for {:.1} min{}{}.",
        stability.ends_text(),
        stability.http_errors,
        stability.requests,
        stability.health_text(),
        stability.observed_s / 60.0,
        stability.up_text(),
        if stability.stopped_early { ", stopped early" } else { "" }
    );
    for gap in &report.gaps {
        let (from, to) = (utc(gap.from_unix_ns), utc(gap.to_unix_ns));
        let _ = writeln!(
            text,
            "- gap: nothing from {} between {from} and {to} UTC",
            escape(&gap.source)
        );
    }
    for sentence in &report.related {
        let _ = writeln!(text, "- {}", escape(sentence));
    }
    let worst =
        report.followed.iter().map(|one| one.level).filter(|level| *level != Level::Unknown);
    let worst = match worst.max() {
        _ if stability.is_shaken() || !report.gaps.is_empty() => "✗ not stable",
        None => "nothing could be judged",
        Some(worst) => worst.words(),
    };
    let _ = writeln!(text, "\n**Conclusion** ({worst}): {}", escape(&report.conclusion));
}
