//! Descriptor leak: the kernel's connection is over, by FIN or RST, but the process never closed its
//! end. Such sockets are in `close_wait`, or closed with an open descriptor (which no `ss` lists).

use crate::input::connections::Word;
use crate::join::Basis;
use crate::report::model::{Certainty, Finding, Kind};
use crate::rule::Case;
use crate::rule::episode::Course;

/// At the end of the recording, one that was over for less than this is only being closed.
const CLOSING_NS: i64 = 2_000_000_000;
/// During it, as many as were there throughout this long were not being closed.
const HELD_NS: i64 = 10_000_000_000;

pub(crate) fn judge(case: &Case<'_>) -> anyhow::Result<Option<Finding>> {
    let joined = case.joined;
    let course = Course::new(case, &joined.sustained(|sample| sample.descriptor_phantoms));
    let held: Vec<u32> = joined
        .lives
        .iter()
        .filter(|life| {
            life.counted
                && !life.is_open()
                && case.ended_ns - life.established_to_ns >= CLOSING_NS
                && joined.lives.held_to_ns(life) == i64::MAX
        })
        .map(|life| life.row)
        .collect();
    let throughout = most_throughout(case);
    let at_end = if joined.basis == Basis::Connections {
        held.len() as i64
    } else {
        joined.held_counts.extremes(case.ended_ns - CLOSING_NS, case.ended_ns).0
    };
    let count = at_end.max(throughout);
    if count == 0 {
        return Ok(None);
    }
    let in_close_wait = held
        .iter()
        .filter(|row| {
            let state = case.recording.connections.word(Word::State, **row as usize);
            state == Some("close_wait")
        })
        .count();
    let mut evidence_for = vec![format!(
        "at the end {at_end} sockets were over and still held by their process: {in_close_wait} in \
         close_wait, {} closed with an open descriptor",
        held.len() - in_close_wait
    )];
    if throughout > 0 {
        evidence_for
            .push(format!("{throughout} were held for longer than {} s", HELD_NS / 1_000_000_000));
    }
    let mut evidence_against = Vec::new();
    if course.peak > 0 {
        evidence_for.push(format!("the server reports up to {} of them", course.peak));
    } else if joined.judged().next().is_some() {
        evidence_against
            .push("the server does not report them: only the descriptors leak".to_owned());
    }
    if at_end < throughout {
        evidence_against.push(format!("{} were closed before the end", throughout - at_end));
    }
    Ok(Some(Finding {
        kind: Kind::DescriptorLeak,
        count,
        percent: course.percent(),
        at_end,
        certainty: if throughout > 0 { Certainty::Certain } else { Certainty::Likely },
        cause: Some(
            "the process does not close its socket after the remote end has closed".to_owned(),
        ),
        cause_certainty: Certainty::Certain,
        examples_are_named: true,
        examples: case.examples(held.into_iter()),
        next_steps: vec![
            "`probe connections --state close_wait --older-than 10s` names the process and the sockets"
                .to_owned(),
            "look for the handler that returns, or waits, without closing its connection".to_owned(),
        ],
        evidence_for,
        evidence_against,
        episodes: course.episodes,
        births: course.births,
    }))
}

/// The most that were held throughout some [`HELD_NS`].
fn most_throughout(case: &Case<'_>) -> i64 {
    let held = &case.joined.held_counts;
    held.steps()
        .filter(|(at_ns, _)| at_ns + HELD_NS <= case.ended_ns)
        .map(|(at_ns, _)| held.extremes(at_ns, at_ns + HELD_NS).0)
        .max()
        .unwrap_or(0)
}
