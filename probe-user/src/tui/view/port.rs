//! One port: how far handshakes come, how they end, how many there are over time, and the latest
//! that failed.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{View, clean, spark};
use crate::{
    clock,
    tui::{
        board::{Service, Tally, percentile},
        leg::STAGES,
        table::brief_us,
    },
    watch::style::Tone,
};

pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect, service: &Service) {
    let mut tallies = view.board.tallies();
    let tally = tallies.remove(service).unwrap_or_default();
    let outcomes = u16::try_from(tally.outcomes.len()).unwrap_or(u16::MAX);
    let upper = (outcomes + 1).max(STAGES.len() as u16 + 1);
    let [head, curves, middle, latest] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(3),
        Constraint::Max(upper + 1),
        Constraint::Min(2),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(self::head(view, service)), head);
    frame.render_widget(Paragraph::new(self::curves(view, service, curves.width)), curves);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
            .spacing(1)
            .areas(middle);
    frame.render_widget(Paragraph::new(funnel(view, &tally, left.width)), left);
    frame.render_widget(Paragraph::new(self::outcomes(view, &tally)), right);
    frame.render_widget(Paragraph::new(self::latest(view, service, latest.height)), latest);
}

fn head(view: &View, service: &Service) -> Vec<Line<'static>> {
    let level = view.board.lines.get(service).map(|line| line.level).unwrap_or_default();
    let times = view.board.times();
    let times = times.get(service).map(Vec::as_slice).unwrap_or_default();
    let time = |percent| percentile(times, percent).map_or_else(|| "-".into(), brief_us);
    let mut counts = vec![
        view.strong(&format!(
            "{} port {} {}",
            clean(&service.container),
            service.port,
            service.role
        )),
        Span::raw(format!(
            "  established {}  upgraded {}  close_wait {}",
            level.established, level.upgraded, level.close_wait
        )),
    ];
    if level.closed_held > 0 {
        let text = format!("  closed, descriptor held {}", level.closed_held);
        counts.push(view.toned(Tone::Warning, text));
    }
    if let Some(reported) = view.board.reported_of(service)
        && let (Ok(answer), Some(phantoms)) = (&reported.answer, reported.phantoms())
    {
        let tone = if phantoms > 0 { Tone::Bad } else { Tone::Good };
        counts.push(view.toned(tone, format!("  reported {answer}  phantoms {phantoms}")));
    }
    vec![
        Line::from(counts),
        Line::raw(format!(
            "handshake of the last minute ({}): p50 {}  p90 {}  p99 {}  max {}",
            times.len(),
            time(50.0),
            time(90.0),
            time(99.0),
            time(100.0)
        )),
    ]
}

fn curves(view: &View, service: &Service, width: u16) -> Vec<Line<'static>> {
    let Some(line) = view.board.lines.get(service) else { return Vec::new() };
    let width = usize::from(width.saturating_sub(24)).min(crate::tui::board::HISTORY);
    let curve = |name: &str, now: String, values: &std::collections::VecDeque<u64>| {
        Line::raw(format!("{name:<11} {now:>8}  {}", spark(values.iter().copied(), width)))
    };
    vec![
        curve("established", line.level.established.to_string(), &line.history),
        curve("new/s", format!("{:.1}", line.opened_rate), &line.opened_history),
        Line::raw(format!("{:<11} {:>8.1}", "ended/s", line.closed_rate)),
    ]
}

/// A bar per stage: of all attempts, how many came there.
fn funnel(view: &View, tally: &Tally, width: u16) -> Vec<Line<'static>> {
    let mut lines =
        vec![Line::from(view.strong(&format!("stages of {} attempts", tally.attempts)))];
    let room = usize::from(width).saturating_sub(16 + 1 + 7 + 1);
    for (stage, count) in STAGES.iter().zip(tally.funnel) {
        let share = count as f64 / tally.attempts.max(1) as f64;
        let bar = "█".repeat((share * room as f64).round() as usize);
        lines.push(Line::raw(format!("{stage:<16} {count:>7} {bar}")));
    }
    lines
}

fn outcomes(view: &View, tally: &Tally) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(view.strong(&format!(
        "outcomes ({} failed, {:.1} %)",
        tally.failed,
        100.0 * tally.failed as f64 / tally.attempts.max(1) as f64
    )))];
    let mut outcomes: Vec<_> = tally.outcomes.iter().collect();
    outcomes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    lines.extend(outcomes.into_iter().map(|(outcome, count)| {
        let text = format!("{count:>7} {}", clean(outcome));
        match outcome.as_ref() {
            "upgraded" | "open" => Line::raw(text),
            _ => Line::from(view.toned(Tone::Bad, text)),
        }
    }));
    lines
}

fn latest(view: &View, service: &Service, height: u16) -> Vec<Line<'static>> {
    let board = view.board;
    let mut failures =
        board.latest.iter().filter(|failure| *failure.service == *service).peekable();
    if failures.peek().is_none() {
        return Vec::new();
    }
    let mut lines =
        vec![Line::from(view.strong("latest failures: when, outcome, peer, last stage"))];
    let room = usize::from(height.saturating_sub(1));
    lines.extend(failures.take(room).map(|failure| {
        let ago_ns = (board.at_mono_ns - failure.at_ns).max(0);
        let at = clock::time_of_day(board.at_unix_ns - ago_ns);
        Line::raw(format!(
            "{at}  {:<29} {:<21} {}",
            clean(&failure.outcome),
            failure.peer,
            failure.stage
        ))
    }));
    lines
}
