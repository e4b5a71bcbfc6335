//! Half-open: the kernel still says established, but the remote end answers nothing any more. Both
//! the server's report and the kernel's count include it, and both are wrong.
//!
//! Told from probes and retransmissions that nobody answered, and afterwards from connections that
//! ended by timeout. A peer that vanished and to which nothing was sent, without keepalive, shows no
//! trace at all.

use crate::input::connections::Number;
use crate::report::model::{Certainty, Finding, Kind};
use crate::rule::Case;
use crate::rule::episode::percent;

/// A single probe may be lost on the way; two in a row without an answer are a silent peer.
const UNANSWERED: u32 = 2;

pub(crate) fn judge(case: &Case<'_>) -> anyhow::Result<Option<Finding>> {
    let number = |number, row: &u32| case.recording.connections.small(number, *row as usize);
    let lives = &case.joined.lives;
    let counted = || lives.iter().filter(|life| life.counted);
    let silent: Vec<u32> = counted()
        .filter(|life| life.is_open())
        .map(|life| life.row)
        .filter(|row| {
            number(Number::UnansweredProbes, row).is_some_and(|probes| probes >= UNANSWERED)
        })
        .collect();
    let timed_out: Vec<u32> = counted()
        .filter(|life| lives.ending(life).how == "timeout" || lives.ending(life).by == "timeout")
        .map(|life| life.row)
        .collect();
    let count = (silent.len() + timed_out.len()) as i64;
    if count == 0 {
        return Ok(None);
    }
    let mut evidence_for = Vec::new();
    if !silent.is_empty() {
        let heard = silent.iter().filter_map(|row| number(Number::LastHeardMs, row)).min();
        let heard = heard.map_or(String::new(), |ms| {
            format!(", and nothing was heard from any for {:.1} s", f64::from(ms) / 1000.0)
        });
        evidence_for.push(format!(
            "{} established connections left {UNANSWERED} or more probes or retransmissions \
             unanswered{heard}",
            silent.len()
        ));
    }
    if !timed_out.is_empty() {
        evidence_for.push(format!(
            "{} connections ended by timeout: until then they counted as established",
            timed_out.len()
        ));
    }
    let reported = case.joined.judged().next_back().map(|(_, comparison)| comparison.reported);
    let rows = silent.iter().chain(&timed_out).copied();
    Ok(Some(Finding {
        kind: Kind::HalfOpen,
        count,
        percent: reported.and_then(|reported| percent(count, reported)),
        at_end: silent.len() as i64,
        certainty: if silent.is_empty() { Certainty::Likely } else { Certainty::Certain },
        cause: Some(
            "the remote host or the path to it went away without a word (no FIN, no RST)"
                .to_owned(),
        ),
        cause_certainty: Certainty::Likely,
        examples_are_named: true,
        examples: case.examples(rows),
        next_steps: vec![
            "shorten keepalive (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT), or let the server \
             ping and close what does not answer"
                .to_owned(),
        ],
        evidence_for,
        evidence_against: Vec::new(),
        episodes: Vec::new(),
        births: Vec::new(),
    }))
}
