//! The first screen: every container, port and role, and the failures of them all.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Cell, Paragraph, Row},
};

use super::{View, middle, right, spark, word};
use crate::{
    tui::{
        board::{Board, Service, Tally, percentile},
        state::{Listed, Sort, State},
        table::brief_us,
    },
    watch::style::Tone,
};

/// Columns that names get before others do.
const NAMES: u16 = 40;

/// A row before it is drawn.
struct Summary {
    service: Service,
    name: String,
    established: i64,
    upgraded: i64,
    close_wait: i64,
    namespaces: usize,
    opened_rate: f64,
    reported: Option<(i64, i64)>,
    p50: Option<u64>,
    p99: Option<u64>,
    tally: Tally,
    history: Vec<u64>,
}

/// The services that match the search, in the order that was chosen.
fn summaries(board: &Board, state: &State) -> Vec<Summary> {
    let mut tallies = board.tallies();
    let times = board.times();
    let mut rows: Vec<Summary> = board
        .lines
        .iter()
        .map(|(service, line)| {
            let times = times.get(service).map(Vec::as_slice).unwrap_or_default();
            Summary {
                service: service.clone(),
                name: word(&board.name(service)),
                established: line.level.established,
                upgraded: line.level.upgraded,
                close_wait: line.level.close_wait,
                namespaces: line.level.namespaces,
                opened_rate: line.opened_rate,
                // A number that is the sum of several services stands in the title only.
                reported: board.reported_of(service).filter(|r| r.services.len() == 1).and_then(
                    |reported| Some((*reported.answer.as_ref().ok()?, reported.phantoms()?)),
                ),
                p50: percentile(times, 50.0),
                p99: percentile(times, 99.0),
                tally: tallies.remove(service).unwrap_or_default(),
                history: line.history.iter().copied().collect(),
            }
        })
        .filter(|row| {
            state.search.is_empty()
                || row.name.contains(&state.search)
                || row.service.port.to_string().contains(&state.search)
                || row.service.role.contains(&state.search)
        })
        .collect();
    rows.sort_by(|a, b| {
        let ordering = match state.sort {
            Sort::Established => b.established.cmp(&a.established),
            Sort::Failed => b.tally.failed.cmp(&a.tally.failed),
            Sort::New => b.opened_rate.total_cmp(&a.opened_rate),
            Sort::Name => std::cmp::Ordering::Equal,
        };
        let ordering = ordering.then_with(|| a.service.cmp(&b.service));
        if state.reverse { ordering.reverse() } else { ordering }
    });
    rows
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Container,
    Port,
    Role,
    Established,
    Upgraded,
    CloseWait,
    Reported,
    Phantom,
    New,
    P50,
    P99,
    Failed,
    Trend,
}

use Column::{
    CloseWait, Container, Established, Failed, New, P50, P99, Phantom, Port, Reported, Role, Trend,
    Upgraded,
};

impl Column {
    const ALL: [Self; 13] = [
        Container,
        Port,
        Role,
        Established,
        Upgraded,
        CloseWait,
        Reported,
        Phantom,
        New,
        P50,
        P99,
        Failed,
        Trend,
    ];
    /// What goes first where the terminal is narrow.
    const DISPENSABLE: [Self; 4] = [Trend, CloseWait, P50, New];

    /// What is above a column, and how wide it is at the least.
    fn head(self) -> (&'static str, u16) {
        match self {
            Container => ("CONTAINER", 12),
            Port => ("PORT", 5),
            Role => ("ROLE", 7),
            Established => ("ESTAB", 6),
            Upgraded => ("UPGR", 6),
            CloseWait => ("CLWAIT", 6),
            Reported => ("REPORTED", 8),
            Phantom => ("PHANTOM", 7),
            New => ("NEW/S", 5),
            P50 => ("P50", 5),
            P99 => ("P99", 5),
            Failed => ("FAILED", 6),
            Trend => ("TREND", 6),
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Container | Role | Trend)
    }
}

/// As many columns as fit beside names of `longest` characters; what is left over goes to the trend, else to
/// the names.
fn fit(width: u16, with_reported: bool, longest: usize) -> Vec<(Column, u16)> {
    let names = u16::try_from(longest).unwrap_or(u16::MAX).clamp(Container.head().1, NAMES);
    let wide = |column: Column| if column == Container { names } else { column.head().1 };
    let mut columns: Vec<Column> = Column::ALL
        .into_iter()
        .filter(|column| with_reported || !matches!(column, Reported | Phantom))
        .collect();
    let needed = |columns: &[Column]| -> u16 {
        columns.iter().map(|column| wide(*column) + 1).sum::<u16>().saturating_sub(1)
    };
    for column in Column::DISPENSABLE {
        if needed(&columns) > width {
            columns.retain(|kept| *kept != column);
        }
    }
    let over = needed(&columns).saturating_sub(width);
    let left = width.saturating_sub(needed(&columns));
    let has_trend = columns.contains(&Trend);
    let fitted = columns.into_iter().map(|column| {
        let fitted = match column {
            Container => wide(column).saturating_sub(over),
            Trend => wide(column) + left.min(54),
            _ => wide(column),
        };
        (column, if column == Container && !has_trend { fitted + left } else { fitted })
    });
    fitted.collect()
}

pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect) -> Listed {
    let rows = summaries(view.board, view.state);
    let notes = notes(view, &rows);
    let height = u16::try_from(notes.len()).unwrap_or(u16::MAX).min(area.height / 3);
    let [list, below] =
        Layout::vertical([Constraint::Min(3), Constraint::Length(height)]).areas(area);
    if view.board.lines.is_empty() {
        let text = if view.board.at_unix_ns == 0 { "counting …" } else { "no connections" };
        frame.render_widget(Paragraph::new(text), list);
        return Listed::default();
    }
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let columns = fit(list.width, !view.board.reported.is_empty(), longest);
    let header = columns
        .iter()
        .map(|&(column, width)| {
            let name = column.head().0;
            if column.is_text() { name.to_owned() } else { right(name, usize::from(width)) }
        })
        .collect();
    let table = rows
        .iter()
        .map(|row| Row::new(columns.iter().map(|&(column, width)| cell(view, row, column, width))))
        .collect();
    let widths = columns.iter().map(|(_, width)| *width).collect();
    let listed = view.list(frame, list, header, widths, table);
    frame.render_widget(Paragraph::new(notes), below);
    Listed { services: rows.into_iter().map(|row| row.service).collect(), ..listed }
}

fn cell(view: &View, row: &Summary, column: Column, width: u16) -> Cell<'static> {
    let width = usize::from(width);
    let time = |us: Option<u64>| us.map_or_else(|| "-".into(), brief_us);
    let text = match column {
        Container => return middle(&row.name, width).into(),
        Role => return word(&row.service.role).into(),
        Trend => return spark(row.history.iter().copied(), width).into(),
        Port => row.service.port.to_string(),
        Established => row.established.to_string(),
        Upgraded => row.upgraded.to_string(),
        CloseWait => row.close_wait.to_string(),
        Reported => row.reported.map_or("-".into(), |(reported, _)| reported.to_string()),
        Phantom => row.reported.map_or("-".into(), |(_, phantoms)| phantoms.to_string()),
        New => format!("{:.0}", row.opened_rate),
        P50 => time(row.p50),
        P99 => time(row.p99),
        Failed => row.tally.failed.to_string(),
    };
    let bad = match column {
        Phantom => row.reported.is_some_and(|(_, phantoms)| phantoms > 0),
        Failed => row.tally.failed > 0,
        _ => false,
    };
    let cell = Cell::from(right(text, width));
    if bad { cell.style(view.look(Tone::Bad)) } else { cell }
}

/// What is a sum over namespaces, and failed handshakes of all that is listed, the most frequent outcome first.
fn notes(view: &View, rows: &[Summary]) -> Vec<Line<'static>> {
    let mut outcomes: Vec<(&str, u64, &Summary)> = rows
        .iter()
        .flat_map(|row| {
            row.tally
                .outcomes
                .iter()
                .filter(|(outcome, _)| !matches!(outcome.as_ref(), "upgraded" | "open"))
                .map(move |(outcome, count)| (outcome.as_ref(), *count, row))
        })
        .collect();
    outcomes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut lines = vec![Line::raw("")];
    lines.extend(rows.iter().filter(|row| row.namespaces > 1).map(|row| {
        let sum = format!("{} {} {}", row.name, row.service.port, row.service.role);
        let count = row.namespaces;
        Line::raw(format!("{sum}: of {count} network namespaces together; probe count has each"))
    }));
    let sorted = format!("sorted by {}", view.state.sort.name());
    if outcomes.is_empty() {
        lines.push(Line::raw(format!("no failed handshakes  ({sorted})")));
        return lines;
    }
    lines.push(Line::from(view.strong(&format!("failed handshakes by outcome  ({sorted})"))));
    lines.extend(outcomes.iter().map(|(outcome, count, row)| {
        Line::from(view.toned(
            Tone::Bad,
            format!(
                "{count:>8} × {:<32} {} {} {}",
                word(outcome),
                row.name,
                row.service.port,
                row.service.role
            ),
        ))
    }));
    lines
}
