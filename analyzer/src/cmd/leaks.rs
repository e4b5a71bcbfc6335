//! `analyzer leaks`: what grows while it should not.

use std::io::Write;

use serde::Serialize;

use crate::cli::{self, Judging, OverTime};
use crate::error::{InputError, Outcome};
use crate::input::kept_log::KeptLog;
use crate::input::recording::Recording;
use crate::leak::report::{self, LeakReport, Plan};
use crate::population::Population;
use crate::report::model::{SCHEMA_VERSION, Threshold, shown_lines};
use crate::report::{build, leak_markdown, leak_text, terminal, text};
use crate::threshold::judge;
use crate::threshold::measure::Subject;
use crate::threshold::rule::Rule;

/// Held where a capture has the figure and no threshold is given.
const USUAL: [&str; 9] = [
    "leaks.goroutines_per_minute < 10",
    "leaks.descriptors_per_minute < 5",
    "leaks.pool_idle_final > 0",
    "leaks.pool_reuse_percent_final > 80",
    "leaks.http_errors == 0",
    "leaks.restarts == 0",
    "leaks.crashes == 0",
    "leaks.oom_kills == 0",
    "leaks.stopped_early == 0",
];

/// So many names of a log's numbers are enough to see what it is.
const SHOWN: usize = 10;

/// Held where checkpoints have an interval that was asked for.
const IN_TIME: &str = "leaks.gaps == 0";

pub(crate) fn run(args: &cli::Leaks) -> anyhow::Result<Outcome> {
    let logs = logs(&args.over_time)?;
    let plan = Plan::from(&args.over_time);
    let mut reports: Vec<LeakReport> = Vec::new();
    for (index, recording) in Recording::open_each(&args.captures)?.iter().enumerate() {
        let servers = build::servers(recording, &Judging::of(&args.filter))?;
        let everything = Population::of_filter(recording, &args.filter)?;
        let population = servers.first().map_or(&everything, |server| &server.population);
        // Logs belong to the run that is named first.
        let logs = if index == 0 { logs.as_slice() } else { &[] };
        reports.extend(report::of(Some((recording, population)), &servers, logs, &plan)?);
    }
    if args.captures.is_empty() {
        if logs.is_empty() {
            return Err(InputError::NothingToRead.into());
        }
        reports.extend(report::of(None, &[], &logs, &plan)?);
    }
    let thresholds = thresholds(&reports, &args.chosen.rules()?, &plan);

    let mut out = terminal::stdout(args.json);
    for report in &reports {
        if args.json {
            #[derive(Serialize)]
            struct Line<'a> {
                schema_version: &'static str,
                #[serde(flatten)]
                report: &'a LeakReport,
                thresholds: &'a [Threshold],
            }
            let line = Line { schema_version: SCHEMA_VERSION, report, thresholds: &thresholds };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        } else if args.markdown {
            out.write_all(leak_markdown::render(report, &thresholds).as_bytes())?;
        } else {
            out.write_all(leak_text::render(report).as_bytes())?;
        }
    }
    if !args.json && !args.markdown {
        out.write_all(text::threshold_lines(&thresholds).as_bytes())?;
    }
    out.flush()?;
    if reports.is_empty() {
        eprintln!("{}", terminal::plain(&nothing_followed(&logs)));
        return Ok(Outcome::Inconclusive);
    }
    Ok(text::outcome(&thresholds))
}

/// What the logs have instead, and what of them could not be read.
fn nothing_followed(logs: &[KeptLog]) -> String {
    let mut text = "analyzer: nothing was followed over time: ".to_owned();
    let names: Vec<&str> =
        logs.iter().flat_map(|log| log.numbers.keys()).map(String::as_str).take(SHOWN).collect();
    match names.as_slice() {
        [] => text.push_str("record with --health or --metrics"),
        names => {
            text.push_str(&format!(
                "name a number with --series NAME=PATH, of {}",
                names.join(", ")
            ));
        }
    }
    for bad in shown_lines(logs.iter().flat_map(|log| &log.unreadable)) {
        text.push_str(&format!("\nunreadable: {}:{}: {}", bad.file, bad.line, bad.why));
    }
    text
}

pub(crate) fn logs(args: &OverTime) -> Result<Vec<KeptLog>, InputError> {
    args.log.iter().map(|path| KeptLog::read(path)).collect()
}

fn thresholds(reports: &[LeakReport], rules: &[Rule], plan: &Plan) -> Vec<Threshold> {
    let subject = Subject { leaks: reports.iter().collect(), ..Subject::default() };
    if !rules.is_empty() {
        return judge(rules, &subject);
    }
    let in_time = plan.interval.map(|_| IN_TIME);
    let usual = USUAL.into_iter().chain(in_time).filter_map(|rule| rule.parse().ok());
    let usual: Vec<Rule> = usual.collect();
    let mut judged = judge(&usual, &subject);
    judged.retain(|threshold| threshold.measured.is_some());
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_thresholds_are_rules() {
        for rule in USUAL.into_iter().chain([IN_TIME]) {
            rule.parse::<Rule>().unwrap();
        }
    }
}
