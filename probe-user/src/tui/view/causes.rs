//! How handshakes ended and, as far as there is room, what has to be seen for that.

use capture::outcome::Outcome;
use ratatui::{layout::Rect, text::Line};

use super::{View, word};
use crate::{
    tui::{board::Tally, leg::STAGES},
    watch::style::Tone,
};

/// Columns of a count and what follows it.
const INDENT: usize = 8;

/// `beyond`: the attempts at the shards, where the port has any.
pub(super) fn lines(
    view: &View,
    tally: &Tally,
    role: &str,
    beyond: Option<&Tally>,
    area: Rect,
) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(view.strong(&format!(
        "outcomes ({} failed, {:.1} %)",
        tally.failed,
        100.0 * tally.failed as f64 / tally.attempts.max(1) as f64
    )))];
    let mut outcomes: Vec<_> = tally.outcomes.iter().collect();
    outcomes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut room = STAGES.len().saturating_sub(outcomes.len());
    for (outcome, count) in outcomes {
        let text = format!("{count:>7} {}", word(outcome));
        if matches!(outcome.as_ref(), "upgraded" | "open") {
            lines.push(Line::raw(text));
            continue;
        }
        lines.push(Line::from(view.toned(Tone::Bad, text)));
        let why = wrapped(&why(outcome, role, beyond), usize::from(area.width) - INDENT);
        if why.len() <= room {
            room -= why.len();
            lines.extend(why.into_iter().map(|line| Line::raw(format!("{:INDENT$}{line}", ""))));
        }
    }
    lines
}

/// What such an end shows.
fn why(outcome: &str, role: &str, beyond: Option<&Tally>) -> String {
    if !outcome.starts_with("http_") || outcome == "http_101_wrong_accept" {
        return Outcome::of(outcome).map_or_else(String::new, |known| known.evidence.to_owned());
    }
    match (beyond, role) {
        (Some(beyond), _) => match beyond.outcomes.get(outcome) {
            Some(count) => format!("shards answered so {count} times"),
            None => "no shard answered so".into(),
        },
        (None, "active") => "the other end answered so".into(),
        (None, _) => "this port's server answered so".into(),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrapped("a request, no response", 11), ["a request,", "no response"]);
        assert!(wrapped("", 11).is_empty());
    }

    #[test]
    fn a_status_is_whose_answer_it_was() {
        let mut beyond = Tally::default();
        assert_eq!(why("http_503", "passive", Some(&beyond)), "no shard answered so");
        beyond.outcomes.insert("http_503".into(), 7);
        assert_eq!(why("http_503", "passive", Some(&beyond)), "shards answered so 7 times");
        assert_eq!(why("http_503", "active", None), "the other end answered so");
        let wrong = why("http_101_wrong_accept", "passive", Some(&beyond));
        assert!(wrong.starts_with("101, and the accept key"), "{wrong}");
    }
}
