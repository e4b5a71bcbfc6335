//! The shards behind a port, a row each.

use std::collections::BTreeMap;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Cell, Paragraph, Row},
};

use super::{View, right, word};
use crate::{
    tui::{
        board::{Service, Tally, percentile},
        shards::Shard,
        state::Listed,
        table::brief_us,
    },
    watch::style::Tone,
};

/// Column heads and widths; the last two where the balancer reports of its shards.
const COLUMNS: [(&str, u16); 9] = [
    ("PORT", 5),
    ("NAME", 16),
    ("ESTAB", 6),
    ("UPGR", 6),
    ("NEW/S", 5),
    ("P50", 5),
    ("P99", 5),
    ("FAILED", 6),
    ("REPORTED", 8),
];
const NAME: usize = 1;
const FAILED: usize = 7;

/// `attempts`: at the port, and at its shards.
pub(super) fn draw(
    view: &View,
    frame: &mut Frame,
    area: Rect,
    shards: &[Shard],
    tallies: &BTreeMap<&Service, Tally>,
    attempts: (u64, u64),
) -> Listed {
    let [title, table, _] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)])
            .areas(area);
    let text = format!("shards ({} attempts here, {} at them)", attempts.0, attempts.1);
    frame.render_widget(Paragraph::new(Line::from(view.strong(&text))), title);
    let columns = if shards.iter().any(|shard| shard.said.is_some()) {
        &COLUMNS[..]
    } else {
        &COLUMNS[..=FAILED]
    };
    let header = columns.iter().enumerate().map(|(index, &(name, width))| {
        if index == NAME { name.to_owned() } else { right(name, usize::from(width)) }
    });
    let times = view.board.times();
    let rows = shards.iter().map(|shard| {
        let line = view.board.lines.get(&shard.service).cloned().unwrap_or_default();
        let times = times.get(&shard.service).map(Vec::as_slice).unwrap_or_default();
        let time = |percent| percentile(times, percent).map_or_else(|| "-".into(), brief_us);
        let failed = tallies.get(&shard.service).map_or(0, |tally| tally.failed);
        let said = shard.said.as_ref();
        let texts = [
            shard.service.port.to_string(),
            said.map_or_else(|| "-".into(), |said| word(&said.name)),
            line.level.established.to_string(),
            line.level.upgraded.to_string(),
            format!("{:.0}", line.opened_rate),
            time(50.0),
            time(99.0),
            failed.to_string(),
            said.map_or_else(|| "-".into(), |said| said.connections.to_string()),
        ];
        Row::new(texts.into_iter().zip(columns).enumerate().map(|(index, (text, &(_, width)))| {
            let text = if index == NAME { text } else { right(text, usize::from(width)) };
            let cell = Cell::from(text);
            if index == FAILED && failed > 0 { cell.style(view.look(Tone::Bad)) } else { cell }
        }))
    });
    let widths = columns.iter().map(|(_, width)| *width).collect();
    let listed = view.list(frame, table, header.collect(), widths, rows.collect());
    Listed { services: shards.iter().map(|shard| shard.service.clone()).collect(), ..listed }
}
