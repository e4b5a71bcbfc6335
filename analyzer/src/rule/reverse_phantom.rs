//! Reverse phantom: established, but not reported. Either the server never entered the connection,
//! or it took out more than one for a close; what happened when the gap opened tells which.

use crate::clock::utc_time;
use crate::report::model::{Birth, Certainty, Finding, Kind};
use crate::rule::Case;
use crate::rule::episode::Course;

pub(crate) fn judge(case: &Case<'_>) -> anyhow::Result<Option<Finding>> {
    let course = Course::new(case, &case.joined.sustained(|sample| sample.reverse));
    if course.peak == 0 {
        return Ok(None);
    }
    let (opened, ended) = at_births(&course);
    let born = course.born();
    let never_entered = born > 0 && opened as i64 >= born && (ended as i64) < born;
    let (cause, cause_certainty) = if never_entered {
        (Some("the server did not enter some connections".to_owned()), Certainty::Likely)
    } else {
        (None, Certainty::Unknown)
    };
    let mut evidence_against = Vec::new();
    if born > 0 && !never_entered {
        evidence_against.push(format!(
            "{opened} connections were opened and {ended} ended when the gap opened: opens that were \
             not entered, or closes that were counted twice"
        ));
    }
    if course.born_before() > 0 {
        evidence_against.push(format!(
            "{} were missing at the first sample: the server may have been restarted, or counts \
             another population (narrow it with --port or --container)",
            course.born_before()
        ));
    }
    Ok(Some(Finding {
        kind: Kind::ReversePhantom,
        count: course.peak,
        percent: course.percent(),
        at_end: course.at_end,
        certainty: Certainty::Certain,
        cause,
        cause_certainty,
        evidence_for: births(&course),
        evidence_against,
        examples_are_named: false,
        examples: Vec::new(),
        next_steps: vec![
            "look at where the server enters a new connection: is there a path that is established \
             but never gets there?"
                .to_owned(),
            "if connections to this port need not be WebSockets, other clients may be counted here"
                .to_owned(),
        ],
        episodes: course.episodes,
        births: course.births,
    }))
}

/// Connections opened and ended while the gap grew.
pub(super) fn at_births(course: &Course) -> (usize, usize) {
    let opened = course.births.iter().map(|birth| birth.opened).sum();
    let ended = course.births.iter().flat_map(|birth| &birth.ended).map(|ended| ended.count).sum();
    (opened, ended)
}

pub(super) fn births(course: &Course) -> Vec<String> {
    let seen = course.births.iter().filter(|birth| !birth.before_first_sample).take(5);
    seen.map(|birth: &Birth| {
        let ended: usize = birth.ended.iter().map(|ended| ended.count).sum();
        format!(
            "{} went missing {}–{}; {} connections were opened and {ended} ended in that time",
            birth.count,
            utc_time(birth.from_unix_ns),
            utc_time(birth.to_unix_ns),
            birth.opened
        )
    })
    .collect()
}
