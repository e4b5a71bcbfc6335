//! One port's sockets.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Paragraph, Row},
};

use super::{View, right, word};
use crate::tui::{
    board::Service,
    state::Listed,
    table::{arranged, brief},
};

/// Of each column: state, class, peer, age, silent, retransmits, process.
const WIDTHS: [u16; 7] = [11, 8, PEER, 5, 6, 5, 18];
/// An IPv4 address and its port.
const PEER: u16 = 21;
/// Left out one after the other where the terminal is narrow: class, retransmits, silent.
const SPARE: [usize; 3] = [1, 5, 4];

/// Which columns there is room for.
struct Kept([bool; WIDTHS.len()]);

impl Kept {
    fn of<T>(&self, all: [T; WIDTHS.len()]) -> Vec<T> {
        all.into_iter().zip(self.0).filter_map(|(one, is_kept)| is_kept.then_some(one)).collect()
    }

    /// With a blank between two.
    fn width(&self) -> u16 {
        self.of(WIDTHS).iter().map(|width| width + 1).sum::<u16>() - 1
    }
}

fn columns(room: u16) -> (Kept, Vec<u16>) {
    let mut kept = Kept([true; WIDTHS.len()]);
    for spare in SPARE {
        if kept.width() > room {
            kept.0[spare] = false;
        }
    }
    // The peer's address may be IPv6: it takes what the others leave.
    let mut widths = WIDTHS;
    widths[2] += room.saturating_sub(kept.width());
    let widths = kept.of(widths);
    (kept, widths)
}

pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect, service: &Service) -> Listed {
    let state = view.state;
    let rows = arranged(view.connections, &state.search, state.order, state.reverse);
    let [head, list] = Layout::vertical([Constraint::Length(1), Constraint::Min(2)]).areas(area);
    let found = if state.search.is_empty() {
        let established = rows.iter().filter(|row| row.state == "established").count();
        // Others are on their way in or out, and outlive what the counts of the port say.
        if established == rows.len() {
            format!("{established} connections")
        } else {
            format!("{} connections, {established} established", rows.len())
        }
    } else {
        let all = view.connections.len();
        format!("{} of {all} connections with \"{}\"", rows.len(), word(&state.search))
    };
    frame.render_widget(
        Paragraph::new(Line::from(view.strong(&format!(
            "{} port {} {}: {found}, by {}{}",
            word(&view.board.name(service)),
            service.port,
            service.role,
            state.order.name(),
            if state.reverse { ", reversed" } else { "" }
        )))),
        head,
    );
    let (kept, widths) = columns(list.width);
    // A service's clients all have it as their peer, at the port that the head line names: what tells
    // them apart is their own port.
    let is_active = service.role == "active";
    let header = kept.of([
        "STATE".into(),
        "CLASS".into(),
        if is_active { "OWN PORT → PEER".into() } else { "PEER".into() },
        right("AGE", 5),
        right("SILENT", 6),
        right("RETR", 5),
        "PROCESS".into(),
    ]);
    // Only what can be in sight is made into rows: the list may be long.
    let height = usize::from(list.height.saturating_sub(1)).max(1);
    let first = (state.selected + 1).saturating_sub(height);
    let shown = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            if index < first || index > state.selected + height {
                return Row::default();
            }
            let time = |ms: Option<u64>| ms.map_or_else(|| "-".into(), brief);
            let retransmits = row.retransmits.map_or_else(|| "-".into(), |n| n.to_string());
            Row::new(kept.of([
                row.state.clone(),
                row.class.clone(),
                match is_active {
                    true => format!("{} → {}", row.local.port(), row.peer.ip()),
                    false => row.peer.to_string(),
                },
                right(time(row.age_ms), 5),
                right(time(row.silent_ms), 6),
                right(retransmits, 5),
                word(&row.process),
            ]))
        })
        .collect();
    view.list(frame, list, header, widths, shown)
}
