//! Application leak: the server reports connections for which there is no socket at all.
//!
//! Told from counts alone: reported exceeds every kernel count in the sample's interval, and also
//! what the process holds of connections that are over. How the connections ended around each birth
//! points at the path where the server's clean-up is missing.

use crate::clock::utc_time;
use crate::listed::left_behind;
use crate::report::model::{Certainty, Finding, Kind};
use crate::report::verdict::plural;
use crate::rule::Case;
use crate::rule::episode::{Course, EndingShare};

pub(crate) fn judge(case: &Case<'_>) -> anyhow::Result<Option<Finding>> {
    let values = case.joined.sustained(|sample| sample.phantoms - sample.descriptor_phantoms);
    let course = Course::new(case, &values);
    if course.peak == 0 {
        return Ok(None);
    }
    let endings = course.endings(case);
    let born = course.born();
    let in_step: Vec<&EndingShare> = endings.iter().filter(|share| share.in_step).collect();
    // An ending that left a phantom every time explains more than one that did so now and then.
    let culprit = in_step.iter().find(|share| share.in_all as i64 == born).or(in_step.first());
    let (cause, cause_certainty) = match culprit {
        Some(share) => (
            Some(format!(
                "the server does not clean up after connections that end {}",
                share.ending.phrase()
            )),
            if in_step.len() == 1 { Certainty::Likely } else { Certainty::Possible },
        ),
        None => (None, Certainty::Unknown),
    };
    let (mut evidence_for, mut evidence_against) = (births(&course), Vec::new());
    if let Some(share) = culprit {
        if share.in_all as i64 == born {
            evidence_for.push(format!(
                "each of the {} connections that ended {} left a phantom",
                share.in_all,
                share.ending.phrase()
            ));
        } else {
            evidence_against.push(format!(
                "{} ended {} in all, {} of them without leaving a phantom",
                plural(share.in_all as i64, "connection"),
                share.ending.phrase(),
                share.in_all as i64 - born
            ));
        }
        for other in endings.iter().filter(|other| other.at_births == 0) {
            evidence_for.push(format!(
                "{} ended {}, none of them when a phantom was born",
                plural(other.in_all as i64, "connection"),
                other.ending.phrase()
            ));
        }
    } else if born > 0 && endings.iter().all(|share| share.at_births == 0) {
        evidence_against.push(
            "no connection ended when they were born: the server may count something else, \
             or count opens twice"
                .to_owned(),
        );
    }
    let held = case.joined.sustained(|sample| sample.descriptor_phantoms);
    if held.iter().flatten().all(|held| *held == 0) {
        evidence_for.push("the process holds no socket of a connection that is over".to_owned());
    }
    if course.born_before() > 0 {
        evidence_against.push(format!(
            "{} were there at the first sample: how they came about was not recorded",
            course.born_before()
        ));
    }
    let on_the_list = left_behind(case.recording, case.joined)?
        .filter(|rows| course.at_end > 0 && rows.len() as i64 == course.at_end);
    if let Some(rows) = &on_the_list {
        evidence_for.push(format!(
            "the server's own list still has {} that are over",
            plural(rows.len() as i64, "connection")
        ));
    }
    let named = on_the_list.is_some();
    let rows =
        on_the_list.unwrap_or_else(|| course.rows_ended(case, culprit.map(|share| &share.ending)));
    Ok(Some(Finding {
        kind: Kind::ApplicationLeak,
        count: course.peak,
        percent: course.percent(),
        at_end: course.at_end,
        certainty: Certainty::Certain,
        cause,
        cause_certainty,
        examples_are_named: named || (culprit.is_some() && rows.len() as i64 == born),
        examples: case.examples(rows.into_iter()),
        next_steps: next_steps(culprit.copied(), named),
        evidence_for,
        evidence_against,
        episodes: course.episodes,
        births: course.births,
    }))
}

/// `45 were born 12:00:31–12:00:33; 45 connections ended in that time, all by rst from the remote end`.
fn births(course: &Course) -> Vec<String> {
    const SHOWN: usize = 5;
    let mut lines: Vec<String> = course
        .births
        .iter()
        .filter(|birth| !birth.before_first_sample)
        .take(SHOWN)
        .map(|birth| {
            let total: usize = birth.ended.iter().map(|ended| ended.count).sum();
            let ways = match birth.ended.as_slice() {
                [] => String::new(),
                [only] => format!(", all {}", only.ending.phrase()),
                several => {
                    let ways: Vec<_> = several
                        .iter()
                        .map(|ended| format!("{} {}", ended.count, ended.ending.phrase()))
                        .collect();
                    format!(": {}", ways.join(", "))
                }
            };
            format!(
                "{} {} born {}–{}; {} ended in that time{ways}",
                birth.count,
                if birth.count == 1 { "was" } else { "were" },
                utc_time(birth.from_unix_ns),
                utc_time(birth.to_unix_ns),
                plural(total as i64, "connection"),
            )
        })
        .collect();
    let more = course.births.len().saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more times in which their number rose"));
    }
    lines
}

fn next_steps(culprit: Option<&EndingShare>, on_the_list: bool) -> Vec<String> {
    let read = match culprit.map(|share| (share.ending.by.as_str(), share.ending.how.as_str())) {
        Some((_, "rst")) => {
            "look at what the server does when a read fails with ECONNRESET: the entry must go there too"
        }
        Some(("timeout", _) | (_, "timeout")) => {
            "look at what the server does when a read or write fails with ETIMEDOUT"
        }
        Some(("remote", "fin")) => {
            "look at what the server does when a read ends without a close frame (end of file)"
        }
        Some(("local", _)) => {
            "look at the paths on which the server itself closes: does each take the entry out?"
        }
        _ if on_the_list => {
            "follow one of these in the server's own log: which path takes the entry out?"
        }
        _ => {
            "record again with a shorter health interval, so that fewer connections end per sample"
        }
    };
    let mut steps = vec![read.to_owned()];
    if !on_the_list {
        steps.push(
            "let the server list its connections, and record with --table URL: then each is named"
                .to_owned(),
        );
    }
    steps
}
