//! The shards behind a port, a row each.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Cell, Paragraph, Row},
};

use super::{View, middle, right, word};
use crate::{
    tui::{shards::Shard, state::Listed, table::brief_us},
    watch::style::Tone,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Port,
    Address,
    Name,
    Established,
    Upgraded,
    New,
    P50,
    P99,
    Failed,
    Reported,
}

impl Column {
    const ALL: [Self; 10] = [
        Self::Port,
        Self::Address,
        Self::Name,
        Self::Established,
        Self::Upgraded,
        Self::New,
        Self::P50,
        Self::P99,
        Self::Failed,
        Self::Reported,
    ];

    fn head(self) -> (&'static str, u16) {
        match self {
            Self::Port => ("PORT", 5),
            Self::Address => ("ADDRESS", 21),
            Self::Name => ("NAME", 16),
            Self::Established => ("ESTAB", 6),
            Self::Upgraded => ("UPGR", 6),
            Self::New => ("NEW/S", 5),
            Self::P50 => ("P50", 5),
            Self::P99 => ("P99", 5),
            Self::Failed => ("FAILED", 6),
            Self::Reported => ("REPORTED", 8),
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Address | Self::Name)
    }

    /// Several on one port are told by their addresses; what the balancer reports is shown where it does.
    fn shown(shards: &[Shard]) -> Vec<Self> {
        let by_address = shards.iter().any(|shard| shard.address.is_some());
        let reported = shards.iter().any(|shard| shard.said.is_some());
        let is_shown = |column: &Self| match column {
            Self::Address => by_address,
            Self::Port | Self::New => !by_address,
            Self::Reported => reported,
            _ => true,
        };
        Self::ALL.into_iter().filter(is_shown).collect()
    }

    fn text(self, shard: &Shard) -> String {
        let number = |n: Option<i64>| n.map_or_else(|| "-".into(), |n| n.to_string());
        let time = |us: Option<u64>| us.map_or_else(|| "-".into(), brief_us);
        match self {
            Self::Port => shard.port.to_string(),
            Self::Address => match shard.address {
                Some(address) => address.to_string(),
                None => format!("port {}", shard.port),
            },
            Self::Name => shard.name().map_or_else(|| "-".into(), word),
            Self::Established => shard.established.to_string(),
            Self::Upgraded => shard.upgraded.to_string(),
            Self::New => shard.opened_rate.map_or_else(|| "-".into(), |rate| format!("{rate:.0}")),
            Self::P50 => time(shard.p50_us),
            Self::P99 => time(shard.p99_us),
            Self::Failed => shard.tally.failed.to_string(),
            Self::Reported => number(shard.said.as_ref().map(|said| said.connections)),
        }
    }
}

/// `attempts`: at the port, and at its shards.
pub(super) fn draw(
    view: &View,
    frame: &mut Frame,
    area: Rect,
    shards: &[Shard],
    attempts: (u64, u64),
) -> Listed {
    let [title, table, _] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)])
            .areas(area);
    let text = format!("shards ({} attempts here, {} at them)", attempts.0, attempts.1);
    frame.render_widget(Paragraph::new(Line::from(view.strong(&text))), title);
    let columns = Column::shown(shards);
    let fit = |column: Column, text: String| {
        let width = usize::from(column.head().1);
        if column.is_text() { middle(&text, width) } else { right(text, width) }
    };
    let header = columns.iter().map(|&column| fit(column, column.head().0.to_owned()));
    let rows = shards.iter().map(|shard| {
        Row::new(columns.iter().map(|&column| {
            let cell = Cell::from(fit(column, column.text(shard)));
            let is_bad = column == Column::Failed && shard.tally.failed > 0;
            if is_bad { cell.style(view.look(Tone::Bad)) } else { cell }
        }))
    });
    let widths = columns.iter().map(|column| column.head().1).collect();
    let listed = view.list(frame, table, header.collect(), widths, rows.collect());
    Listed { services: shards.iter().map(|shard| shard.service.clone()).collect(), ..listed }
}
