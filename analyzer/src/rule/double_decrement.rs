//! Double decrement: one close takes two off the server's counter. Sooner or later the report is
//! below what is established, and below zero when everything is closed.

use crate::report::model::{Certainty, Finding, Kind};
use crate::report::verdict::thousands;
use crate::rule::Case;
use crate::rule::episode::Course;
use crate::rule::reverse_phantom::{at_births, births};

pub(crate) fn judge(case: &Case<'_>) -> anyhow::Result<Option<Finding>> {
    let course = Course::new(case, &case.joined.sustained(|sample| sample.reverse));
    if course.peak == 0 {
        return Ok(None);
    }
    let lowest = case.joined.judged().map(|(_, comparison)| comparison.reported).min().unwrap_or(0);
    let (opened, ended) = at_births(&course);
    let born = course.born();
    let by_closes = born > 0 && ended as i64 >= born && (opened as i64) < born;
    if lowest >= 0 && !by_closes {
        return Ok(None);
    }
    let endings = course.endings(case);
    let in_step = endings.iter().find(|share| share.in_step);
    let mut evidence_for = births(&course);
    if lowest < 0 {
        evidence_for.push(format!(
            "the server reported {}: no counter of connections can be negative",
            thousands(lowest)
        ));
    }
    if let Some(share) = in_step {
        evidence_for.push(format!(
            "each time exactly as many connections ended {} as went missing",
            share.ending.phrase()
        ));
    }
    let cause = in_step.map_or_else(
        || "closes are counted twice on some path".to_owned(),
        |share| {
            format!("a close is counted twice when a connection ends {}", share.ending.phrase())
        },
    );
    let rows = course.rows_ended(case, in_step.map(|share| &share.ending));
    Ok(Some(Finding {
        kind: Kind::DoubleDecrement,
        count: course.peak,
        percent: course.percent(),
        at_end: course.at_end,
        certainty: if lowest < 0 { Certainty::Certain } else { Certainty::Likely },
        cause: Some(cause),
        cause_certainty: if in_step.is_some() { Certainty::Likely } else { Certainty::Possible },
        examples_are_named: in_step.is_some() && rows.len() as i64 == born,
        examples: case.examples(rows.into_iter()),
        next_steps: vec![
            "look for two places that count down for one close: the read loop's end and an explicit \
             unregister, or a deferred one beside an error path"
                .to_owned(),
        ],
        evidence_for,
        evidence_against: Vec::new(),
        episodes: course.episodes,
        births: course.births,
    }))
}
