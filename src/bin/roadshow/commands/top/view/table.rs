//! Table of a view: columns that fit the width, the selected row, and the sort marker.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell as TableCell, Row as TableRow, StatefulWidget, Table, TableState};

use super::Look;
use crate::commands::top::columns::{Cell, Heading, Row};
use crate::commands::top::model::{Model, Sort};

/// Maximum width of a column, except the last one, which has the rest of the line.
const CELL_WIDTH_MAX: u16 = 30;

/// Minimum width of the last column, below which other columns are left out.
const LAST_WIDTH_MIN: u16 = 12;

/// Blanks between two columns.
const SPACING: u16 = 2;

/// Marker of the selected row, which also shows without colours.
const MARKER: &str = "> ";

pub(super) fn draw(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let rows = model.visible();
    let table = model.table.as_ref().filter(|table| table.view == model.view);
    let Some(table) = table else {
        return buffer_line(area, buffer, "loading");
    };
    if rows.is_empty() {
        let text = match model.state().filter.is_empty() {
            true => "there are none",
            false => "no row passes the filter; Esc removes it",
        };
        return buffer_line(area, buffer, text);
    }
    let sort = model.state().sort;
    let available = area.width.saturating_sub(2);
    let columns = fit(&table.headings, &widths(&table.headings, &rows), available);
    let header = columns.iter().map(|(index, _)| {
        let text = titled(&table.headings, *index, sort);
        aligned(text, is_numeric(&rows, *index))
    });
    let header = TableRow::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    // Only the rows on the screen, with the selected one among them.
    let height = usize::from(area.height.saturating_sub(1)).max(1);
    let first = match look.is_interactive {
        true => (model.state().position + 1).saturating_sub(height),
        false => 0,
    };
    let shown = rows.iter().skip(first).take(height).map(|row| {
        let cells = columns.iter().map(|(index, _)| {
            let cell = aligned(row.cells[*index].shown().to_owned(), is_numeric(&rows, *index));
            match table.headings[*index].title {
                "STATE" | "FUNCTION" => cell.style(look.tone(row.tone)),
                _ => cell,
            }
        });
        TableRow::new(cells)
    });
    let widths: Vec<Constraint> = columns.iter().map(|(_, width)| Constraint::Length(*width)).collect();
    let widget = Table::new(shown, widths)
        .header(header)
        .column_spacing(SPACING)
        .highlight_symbol(MARKER)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = Some(model.state().position - first).filter(|_| look.is_interactive);
    let mut state = TableState::new().with_selected(selected);
    StatefulWidget::render(widget, area, buffer, &mut state);
}

fn buffer_line(area: Rect, buffer: &mut Buffer, text: &str) {
    buffer.set_stringn(area.x, area.y, text, usize::from(area.width), Style::new());
}

fn aligned<'a>(text: String, is_right: bool) -> TableCell<'a> {
    let line = Line::from(text);
    TableCell::new(Text::from(if is_right { line.right_aligned() } else { line }))
}

/// Title of a column, with a marker if the rows are sorted by it.
fn titled(headings: &[Heading], index: usize, sort: Sort) -> String {
    let title = headings[index].title;
    match sort {
        Sort { column: Some(column), is_descending } if column == index => {
            format!("{title}{}", if is_descending { "v" } else { "^" })
        }
        _ => title.to_owned(),
    }
}

fn is_numeric(rows: &[&Row], column: usize) -> bool {
    let mut cells = rows.iter().map(|row| &row.cells[column]);
    cells.any(|cell| matches!(cell, Cell::Number(..)))
}

/// Width of each column's longest cell, with room for the sort marker.
fn widths(headings: &[Heading], rows: &[&Row]) -> Vec<u16> {
    // Most text is ASCII, whose width needs no table.
    let width = |text: &str| match text.is_ascii() {
        true => text.len(),
        false => Line::from(text).width(),
    };
    let width = |text: &str| u16::try_from(width(text)).unwrap_or(u16::MAX);
    let columns = headings.iter().enumerate().map(|(column, heading)| {
        let cells = rows.iter().map(|row| width(row.cells[column].shown()));
        cells.max().unwrap_or(0).max(width(heading.title) + 1)
    });
    columns.collect()
}

/// Chooses columns and their widths for a line of `available` blanks.
///
/// The last column is cut first, and then the columns with the highest rank are left out.
fn fit(headings: &[Heading], widths: &[u16], available: u16) -> Vec<(usize, u16)> {
    let last = headings.len().saturating_sub(1);
    let capped = widths.iter().enumerate().map(|(index, width)| match index == last {
        true => (index, *width),
        false => (index, (*width).min(CELL_WIDTH_MAX)),
    });
    let mut columns: Vec<(usize, u16)> = capped.collect();
    loop {
        let sum: u32 = columns.iter().map(|(_, width)| u32::from(width + SPACING)).sum();
        let sum = sum.saturating_sub(u32::from(SPACING));
        let excess = u16::try_from(sum.saturating_sub(u32::from(available))).unwrap_or(u16::MAX);
        if excess == 0 {
            return columns;
        }
        if let Some((_, width)) = columns.last_mut()
            && width.saturating_sub(excess) >= LAST_WIDTH_MIN
        {
            *width -= excess;
            return columns;
        }
        let worst = columns.iter().enumerate().max_by_key(|(_, (index, _))| headings[*index].rank);
        match worst {
            Some((at, (index, _))) if headings[*index].rank > 0 => drop(columns.remove(at)),
            // The terminal cuts what is left.
            _ => return columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &[Heading] = &[
        Heading { title: "A", rank: 0 },
        Heading { title: "B", rank: 2 },
        Heading { title: "C", rank: 1 },
        Heading { title: "CAUSE", rank: 1 },
    ];

    #[test]
    fn narrow_lines_cut_the_last_column_and_then_leave_out_by_rank() {
        let fitted = |available| fit(HEADINGS, &[4, 4, 4, 40], available);
        assert_eq!(fitted(80), [(0, 4), (1, 4), (2, 4), (3, 40)]);
        assert_eq!(fitted(40), [(0, 4), (1, 4), (2, 4), (3, 22)]);
        assert_eq!(fitted(30), [(0, 4), (1, 4), (2, 4), (3, 12)]);
        assert_eq!(fitted(24), [(0, 4), (2, 4), (3, 12)]);
        assert_eq!(fitted(10), [(0, 4), (2, 4)]);
        assert_eq!(fitted(2), [(0, 4)]);
    }

    #[test]
    fn long_cells_are_limited_except_in_the_last_column() {
        assert_eq!(fit(HEADINGS, &[100, 4, 4, 100], 200)[0], (0, CELL_WIDTH_MAX));
        assert_eq!(fit(HEADINGS, &[100, 4, 4, 100], 200)[3], (3, 100));
    }
}
