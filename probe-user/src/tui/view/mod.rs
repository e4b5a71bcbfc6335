//! Draws one frame: a title that says what may be missing, the screen, and the keys.

mod causes;
mod connections;
mod port;
mod services;
mod shards;

use std::{collections::BTreeSet, time::Duration};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style as Look},
    text::{Line, Span},
    widgets::{Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::{
    Title,
    board::{Board, Reported},
    state::{Listed, Screen, State, Transport},
    table::Connection,
};
use crate::{
    clock,
    printable::word,
    watch::style::{Style, Tone},
};

/// One frame's input.
pub(super) struct View<'a> {
    pub(super) board: &'a Board,
    pub(super) connections: &'a [Connection],
    pub(super) state: &'a State,
    pub(super) title: &'a Title,
    pub(super) style: Style,
}

impl View<'_> {
    /// Returns the list on the screen.
    pub(super) fn draw(&self, frame: &mut Frame) -> Listed {
        let head = self.head(frame.area().width);
        let [top, body, foot] = Layout::vertical([
            Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(head), top);
        let listed = match &self.state.screen {
            Screen::Services => services::draw(self, frame, body),
            Screen::Port(service) => port::draw(self, frame, body, service),
            Screen::Connections(service) => connections::draw(self, frame, body, service),
        };
        frame.render_widget(Paragraph::new(self.foot(&listed)), foot);
        if self.state.help {
            self.draw_help(frame);
        }
        listed
    }

    fn head(&self, width: u16) -> Vec<Line<'static>> {
        let mut title = vec![
            self.strong("probe top"),
            Span::raw(format!("  {}  {}  ", word(&self.title.host), self.title.backend)),
        ];
        title.push(if self.board.exact {
            self.toned(Tone::Good, "exact".into())
        } else if self.board.lines.is_empty() {
            Span::raw("…")
        } else {
            self.toned(Tone::Bad, "NOT EXACT".into())
        });
        title.push(Span::raw(format!("  {} UTC", clock::time_of_day(self.board.at_unix_ns))));
        if self.state.paused {
            title.push(self.toned(Tone::Warning, "  PAUSED".into()));
        }
        let mut lines = vec![Line::from(title)];
        if let Some(transport) = &self.state.transport {
            lines.push(self.transport(transport));
        }
        for reported in &self.board.reported {
            lines.push(self.reported_line(reported, width));
        }
        lines.extend(self.degraded(width));
        lines
    }

    /// Why counts are not exact, two reasons of them; of what only limits them, one. The help has all.
    fn degraded(&self, width: u16) -> Vec<Line<'static>> {
        let reasons = &self.board.degraded;
        let (lead, most) = if self.board.exact { ("note", 1) } else { ("not exact", 2) };
        let all = reasons.len();
        // What was lost stands behind what this kernel lacks from the start.
        let lines = reasons.iter().rev().take(most).enumerate().map(|(index, reason)| {
            let number = index + 1;
            let text = match all > most {
                true => format!("{lead} {number} of {all} (? has all): {}", word(reason)),
                false => format!("{lead}: {}", word(reason)),
            };
            let text = cut(&text, usize::from(width));
            match self.board.exact {
                true => Line::raw(text),
                false => Line::from(self.toned(Tone::Warning, text)),
            }
        });
        lines.collect()
    }

    fn reported_line(&self, reported: &Reported, width: u16) -> Line<'static> {
        let url = word(&reported.url);
        let Ok(answer) = &reported.answer else {
            let error = reported.answer.as_ref().err().map(String::as_str).unwrap_or_default();
            return Line::from(self.toned(Tone::Bad, format!("{url}: {}", word(error))));
        };
        let kernel = match (reported.kernel_min, reported.kernel_max) {
            (Some(min), Some(max)) if min == max => min.to_string(),
            (Some(min), Some(max)) => format!("{min} to {max}"),
            _ => "?".into(),
        };
        // A sum says of what.
        let ports: BTreeSet<u16> = reported.services.iter().map(|service| service.port).collect();
        let ports = match ports.len() {
            0 | 1 => String::new(),
            _ => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("at {}  ", ports.join(","))
            }
        };
        let phantoms = reported.phantoms().unwrap_or(0);
        let reverse = reported.reverse().unwrap_or(0);
        let tone = if phantoms + reverse > 0 { Tone::Bad } else { Tone::Good };
        let mut spans = vec![
            Span::raw(format!("reported {answer}  established {kernel}  {ports}")),
            self.toned(tone, format!("phantoms {phantoms}")),
        ];
        if reverse > 0 {
            spans.push(self.toned(Tone::Bad, format!("  not reported {reverse}")));
        }
        let room = usize::from(width).saturating_sub(Line::from(spans.clone()).width());
        spans.push(Span::raw(cut(&format!("  {url}"), room)));
        Line::from(spans)
    }

    fn transport(&self, transport: &Transport) -> Line<'static> {
        let seconds = |ns: i64| Duration::from_secs((ns / 1_000_000_000).max(0).cast_unsigned());
        let whole = transport.until_ns - transport.from_ns;
        let done = transport.at_ns - transport.from_ns;
        let filled = (done as f64 / whole.max(1) as f64 * 20.0) as usize;
        Line::from(vec![
            self.strong(if transport.playing { "replay ▶ " } else { "replay ⏸ " }),
            Span::raw(format!(
                "[{}{}] {} of {}  speed {}x",
                "=".repeat(filled),
                "-".repeat(20 - filled.min(20)),
                clock::short(seconds(done)),
                clock::short(seconds(whole)),
                transport.speed,
            )),
        ])
    }

    fn foot(&self, listed: &Listed) -> Line<'static> {
        if self.state.typing {
            return Line::from(format!("search: {}_   Enter keep   Esc clear", self.state.search));
        }
        let screen = match self.state.screen {
            Screen::Services => "Enter port  c connections  s sort  ",
            Screen::Port(_) if listed.rows > 0 => "Enter shard  c connections  Esc back  ",
            Screen::Port(_) => "Enter connections  Esc back  ",
            Screen::Connections(_) => "s sort  r reverse  Esc back  ",
        };
        // All of it has room in 80 columns; the help says what each does.
        let clock = if self.state.transport.is_some() {
            "space play  , . ← → + -  "
        } else {
            match self.state.screen {
                Screen::Port(_) => "p pause  ",
                Screen::Services | Screen::Connections(_) => "/ search  p pause  ",
            }
        };
        Line::from(format!("{screen}{clock}? help  q quit"))
    }

    fn draw_help(&self, frame: &mut Frame) {
        let mut text = vec![
            "↑ ↓ PgUp PgDn Home End   select",
            "Enter                    into a port, its shards, its connections",
            "c                        straight to the connections",
            "Esc                      back; clears a search first",
            "s  r                     next column to sort by; reverse",
            "/                        show only rows with this text",
            "p or space               pause the picture; counting goes on",
            "q                        quit",
        ];
        if self.state.transport.is_some() {
            text[6] = "p or space               play, pause";
            text.extend([
                ".  ,                     a second on, a second back",
                "→  ←                     ten seconds on, ten back",
                "0  $                     begin, end",
                "+  -                     twice, half as fast",
            ]);
        }
        text.extend([
            "",
            "P50, P99: from the SYN to the answer 101, handshakes of the last minute.",
            "FAILED: attempts that did not end upgraded, since the view began.",
            "PHANTOM: reported beyond the kernel's highest count of that moment.",
            "",
            "any key goes back",
        ]);
        let mut lines: Vec<Line> = text.into_iter().map(Line::raw).collect();
        if !self.board.degraded.is_empty() {
            let lead = if self.board.exact { "notes" } else { "not exact" };
            lines.extend([Line::default(), Line::from(self.strong(lead))]);
            lines.extend(self.board.degraded.iter().rev().map(|reason| Line::raw(word(reason))));
        }
        let area = frame.area();
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }

    /// A table with a header and a selected row that is always in sight.
    fn list(
        &self,
        frame: &mut Frame,
        area: Rect,
        header: Vec<String>,
        widths: Vec<u16>,
        rows: Vec<Row<'_>>,
    ) -> Listed {
        let count = rows.len();
        let table = Table::new(rows, widths.into_iter().map(Constraint::Length))
            .header(Row::new(header).style(Look::new().add_modifier(Modifier::BOLD)))
            .column_spacing(1)
            .row_highlight_style(Look::new().add_modifier(Modifier::REVERSED));
        let mut selected = TableState::new().with_selected(Some(self.state.selected));
        frame.render_stateful_widget(table, area, &mut selected);
        let below = area.height.min(1);
        let area = Rect { y: area.y + below, height: area.height - below, ..area };
        Listed { services: Vec::new(), rows: count, area, first: selected.offset() }
    }

    fn strong(&self, text: &str) -> Span<'static> {
        Span::styled(text.to_owned(), Look::new().add_modifier(Modifier::BOLD))
    }

    fn toned(&self, tone: Tone, text: String) -> Span<'static> {
        Span::styled(text, self.look(tone))
    }

    /// Bold stands in where there is no colour.
    fn look(&self, tone: Tone) -> Look {
        if !self.style.is_coloured() {
            return match tone {
                Tone::Good => Look::new(),
                Tone::Warning | Tone::Bad => Look::new().add_modifier(Modifier::BOLD),
            };
        }
        Look::new().fg(match tone {
            Tone::Good => Color::Green,
            Tone::Warning => Color::Yellow,
            Tone::Bad => Color::Red,
        })
    }
}

/// As much of it as fits, and a mark where that is not all.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A name in so many columns: what tells names of one project apart is often their end.
fn middle(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let tail = width.saturating_sub(1).div_ceil(2);
    let head: String = text.chars().take(width.saturating_sub(1 + tail)).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// A number flush right.
fn right(text: impl std::fmt::Display, width: usize) -> String {
    format!("{:>width$}", text.to_string())
}

/// The last values as a line of blocks; the highest leaves a gap to the row above.
fn spark(values: impl DoubleEndedIterator<Item = u64>, width: usize) -> String {
    const BLOCKS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    let mut shown: Vec<u64> = values.rev().take(width).collect();
    shown.reverse();
    let highest = shown.iter().copied().max().unwrap_or(0).max(1);
    shown.iter().map(|&value| BLOCKS[((value * 6).div_ceil(highest)) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_ends_with_the_newest_value() {
        assert_eq!(spark([0, 7, 14].into_iter(), 3), "▁▄▇");
        assert_eq!(spark([9, 0, 7].into_iter(), 2), "▁▇");
        assert_eq!(spark([0, 0].into_iter(), 5), "▁▁");
    }

    #[test]
    fn what_is_cut_off_is_marked() {
        assert_eq!([cut("träge", 5), cut("träge", 4), cut("", 0)], ["träge", "trä…", ""]);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(word("we\u{1b}[2Jb"), "we\u{fffd}[2Jb");
    }
}
