//! Tables for people: plain columns, as wide as the terminal, at most 100 where there is none.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use crate::{
    printable,
    watch::style::{Style, Tone},
};

/// An empty table; `right`: columns of numbers.
pub(super) fn new(header: impl IntoIterator<Item = &'static str>, right: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.into_iter().collect::<Vec<_>>());
    if table.width().is_none() {
        table.set_width(100);
    }
    for &index in right {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A cell of text from elsewhere, such as a process name.
pub(super) fn text(content: &str) -> Cell {
    Cell::new_owned(printable::word(content))
}

/// A coloured word.
pub(super) fn word(content: &str, tone: Tone, style: Style) -> Cell {
    let cell = Cell::new(content);
    if !style.is_coloured() {
        return cell;
    }
    cell.fg(match tone {
        Tone::Good => Color::Green,
        Tone::Warning => Color::Yellow,
        Tone::Bad => Color::Red,
    })
}

pub(super) fn render(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
