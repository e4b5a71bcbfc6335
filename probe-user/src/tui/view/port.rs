//! One port: how far handshakes come, how they end and what that means, how many there are over
//! time, the shards behind it, and the latest that failed.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{View, causes, shards as table, spark, word};
use crate::{
    clock,
    tui::{
        board::{HISTORY, Service, Tally, percentile},
        leg::STAGES,
        shards::{self, Behind},
        state::Listed,
        table::brief_us,
    },
    watch::style::Tone,
};

/// Rows that a few shards take with their heads before the latest failures get any.
const FEW: u16 = 6;

pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect, service: &Service) -> Listed {
    let tallies = view.board.tallies();
    let tally = tallies.get(service).cloned().unwrap_or_default();
    let behind = Behind::new(view.board, &tallies).of(service);
    let beyond = shards::sum(behind.iter().map(|shard| &shard.tally));
    let [head, curves, rest] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(2),
        Constraint::Min(STAGES.len() as u16 + 2),
    ])
    .areas(area);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
            .spacing(1)
            .areas(rest);
    let outcomes =
        causes::lines(view, &tally, &service.role, (!behind.is_empty()).then_some(&beyond), right);
    let upper = u16::try_from(outcomes.len()).unwrap_or(u16::MAX).max(STAGES.len() as u16 + 1) + 1;
    let below = rest.height.saturating_sub(upper);
    let wanted = if behind.is_empty() { 0 } else { 3 + behind.len().min(100) as u16 };
    let [_, middle, latest] = Layout::vertical([
        Constraint::Length(upper),
        Constraint::Length(wanted.min((below * 2 / 3).max(FEW.min(below)))),
        Constraint::Min(0),
    ])
    .areas(rest);
    frame.render_widget(Paragraph::new(self::head(view, service)), head);
    frame.render_widget(Paragraph::new(self::curves(view, service, curves.width)), curves);
    frame.render_widget(Paragraph::new(funnel(view, &tally, left.width)), left);
    frame.render_widget(Paragraph::new(outcomes), right);
    let listed = if behind.is_empty() {
        Listed::default()
    } else {
        table::draw(view, frame, middle, &behind, (tally.attempts, beyond.attempts))
    };
    frame.render_widget(Paragraph::new(self::latest(view, service, latest.height)), latest);
    listed
}

fn head(view: &View, service: &Service) -> Vec<Line<'static>> {
    let level = view.board.lines.get(service).map(|line| line.level).unwrap_or_default();
    let times = view.board.times();
    let times = times.get(service).map(Vec::as_slice).unwrap_or_default();
    let time = |percent| percentile(times, percent).map_or_else(|| "-".into(), brief_us);
    let mut counts = vec![
        view.strong(&format!(
            "{} port {} {}",
            word(&view.board.name(service)),
            service.port,
            service.role
        )),
        Span::raw(format!("  established {}", level.established)),
    ];
    if let Some(reported) = view.board.reported_of(service)
        && let (Ok(answer), Some(phantoms)) = (&reported.answer, reported.phantoms())
    {
        let tone = if phantoms > 0 { Tone::Bad } else { Tone::Good };
        counts.push(view.toned(tone, format!("  reported {answer}  phantoms {phantoms}")));
    }
    counts.push(Span::raw(format!("  upgraded {}", level.upgraded)));
    if level.namespaces > 1 {
        counts.push(Span::raw(format!("  of {} namespaces", level.namespaces)));
    }
    for (count, what) in
        [(level.close_wait, "close_wait"), (level.closed_held, "closed, descriptor held")]
    {
        if count > 0 {
            counts.push(view.toned(Tone::Warning, format!("  {what} {count}")));
        }
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
    let rates = format!("new/s {:.1}  ended/s {:.1}", line.opened_rate, line.closed_rate);
    let level = format!("established {}", line.level.established);
    [(level, &line.history), (rates, &line.opened_history)]
        .map(|(name, values)| {
            let name = format!("{name:<30}");
            let room = usize::from(width).saturating_sub(name.chars().count()).min(HISTORY);
            Line::raw(name + &spark(values.iter().copied(), room))
        })
        .into()
}

/// A bar per stage: of all attempts, how many came there.
fn funnel(view: &View, tally: &Tally, width: u16) -> Vec<Line<'static>> {
    let mut lines =
        vec![Line::from(view.strong(&format!("stages of {} attempts", tally.attempts)))];
    let room = usize::from(width).saturating_sub(16 + 1 + 7 + 1);
    for (stage, count) in STAGES.iter().zip(tally.funnel) {
        let share = count as f64 / tally.attempts.max(1) as f64;
        // Rows stay apart.
        let bar = "▆".repeat((share * room as f64).round() as usize);
        lines.push(Line::raw(format!("{stage:<16} {count:>7} {bar}")));
    }
    lines
}

fn latest(view: &View, service: &Service, height: u16) -> Vec<Line<'static>> {
    let board = view.board;
    let mut failures =
        board.latest.iter().filter(|failure| *failure.service == *service).peekable();
    if failures.peek().is_none() || height < 2 {
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
            word(&failure.outcome),
            failure.peer,
            failure.stage
        ))
    }));
    lines
}
