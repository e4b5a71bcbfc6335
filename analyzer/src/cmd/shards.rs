//! `analyzer shards`: connections per shard, and their imbalance.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli;
use crate::clock::utc;
use crate::error::Outcome;
use crate::input::recording::Recording;
use crate::population::Population;
use crate::report::model::SCHEMA_VERSION;
use crate::report::shard::{self, ShardReport};
use crate::report::verdict::thousands;
use crate::report::{terminal, text};
use crate::threshold::judge;
use crate::threshold::measure::Subject;
use crate::threshold::rule::Rule;

pub(crate) fn run(args: &cli::Shards) -> anyhow::Result<Outcome> {
    let mut reports = Vec::new();
    for dir in &args.captures {
        for recording in Recording::open_all(dir)? {
            let population = Population::of_filter(&recording, &args.filter)?;
            reports.push(shard::of(&recording, &population)?);
        }
    }
    let mut rules: Vec<Rule> =
        args.max_imbalance.map(Rule::imbalance_at_most).into_iter().collect();
    rules.extend(args.chosen.rules()?);
    let subject = Subject { shards: reports.iter().collect(), ..Subject::default() };
    let thresholds = judge(&rules, &subject);
    let mut out = terminal::stdout(args.json);
    for report in &reports {
        if args.json {
            #[derive(Serialize)]
            struct Line<'a> {
                schema_version: &'static str,
                #[serde(flatten)]
                report: &'a ShardReport,
            }
            let line = Line { schema_version: SCHEMA_VERSION, report };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        } else {
            write_table(&mut out, report)?;
        }
    }
    if !args.json {
        out.write_all(text::threshold_lines(&thresholds).as_bytes())?;
    }
    out.flush()?;
    Ok(text::outcome(&thresholds))
}

fn write_table(out: &mut impl Write, report: &ShardReport) -> io::Result<()> {
    if report.shards.is_empty() {
        return writeln!(
            out,
            "{}: no connection was followed to a shard; name the shards' ports with --port",
            report.capture
        );
    }
    let imbalance = report
        .imbalance_percent
        .map_or("not to be judged".to_owned(), |percent| format!("{percent:.1} %"));
    let at = report.fullest_unix_ns.map_or(String::new(), |at| format!(" at {} UTC", utc(at)));
    writeln!(
        out,
        "{}: imbalance {imbalance}{at}, the time of the most connections",
        report.capture
    )?;
    writeln!(
        out,
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "port", "attempts", "upgraded", "failed", "most", "at that time", "at the end"
    )?;
    for shard in &report.shards {
        writeln!(
            out,
            "{:>8} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10}",
            shard.port,
            thousands(shard.attempts as i64),
            thousands(shard.upgraded as i64),
            thousands(shard.failed as i64),
            thousands(shard.peak),
            thousands(shard.at_fullest),
            thousands(shard.at_end)
        )?;
    }
    for (path, value) in report.health.iter().filter(|(path, _)| path.ends_with(".available")) {
        writeln!(out, "  the balancer's own health, last: {path} = {value}")?;
    }
    Ok(())
}
