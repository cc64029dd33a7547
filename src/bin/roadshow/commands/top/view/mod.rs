//! Picture of the screen, as a pure function of the model.
//!
//! ```text
//! title and connection
//! counts of the cluster
//! alerts, and what waits        only as far as there is room
//! views
//! table                         or fields of a row, or help; a confirmation lies above it
//! message, filter or keys
//! ```

mod header;
mod panel;
mod table;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::columns::Tone;
use super::model::{Connection, Mode, Model};

/// Smallest screen, in columns and rows, that has room for a table.
const SIZE_MIN: (u16, u16) = (24, 8);

/// Screen height, in rows, from which the header has all counts.
const COUNTS_HEIGHT_MIN: u16 = 12;

/// Rows that notes leave for views, table and keys.
const TABLE_HEIGHT_MIN: u16 = 8;

/// Screen height, in rows, from which alerts and pending actors have lines of their own.
const NOTES_HEIGHT_MIN: u16 = 16;

/// Lines of a page besides its rows: at most 5 of the header, 14 of notes, and the views and headings.
const PAGE_LINES_MAX: u16 = 25;

/// Means of the screen. Without colours the states remain as words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    has_colours: bool,
    /// Marks the selected row, and shows the keys.
    is_interactive: bool,
}

impl Look {
    /// Page of plain text.
    pub(super) const PLAIN: Self = Self { has_colours: false, is_interactive: false };

    /// Look of a terminal: a variable `NO_COLOR` that is not empty removes the colours.
    pub(super) fn live() -> Self {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { has_colours, is_interactive: true }
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Good => self.colour(Color::Green),
            Tone::Waiting => self.colour(Color::Yellow),
            Tone::Bad => self.colour(Color::Red),
            Tone::Ended => Style::new().add_modifier(Modifier::DIM),
            Tone::Plain => Style::new(),
        }
    }

    fn bad(self) -> Style {
        self.tone(Tone::Bad).add_modifier(Modifier::BOLD)
    }
}

/// Draws the screen. Returns the number of table rows that it has room for.
pub(super) fn draw(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) -> usize {
    if area.width < SIZE_MIN.0 || area.height < SIZE_MIN.1 {
        let (width, height) = SIZE_MIN;
        buffer.set_stringn(
            area.x,
            area.y,
            format!("at least {width}x{height}"),
            usize::from(area.width),
            Style::new(),
        );
        return 1;
    }
    let mut lines = header::lines(model, look, area.width);
    if area.height < COUNTS_HEIGHT_MIN {
        lines.truncate(2);
    }
    if area.height >= NOTES_HEIGHT_MIN {
        // Notes leave the table its room, whatever the number of alerts.
        let room = usize::from(area.height - TABLE_HEIGHT_MIN).saturating_sub(lines.len());
        lines.extend(header::notes(model, look, area.width).into_iter().take(room));
    }
    lines.push(header::views(model));
    let body_at = area.y + u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height - 1);
    for (line, y) in lines.iter().zip(area.y..body_at) {
        buffer.set_line(area.x, y, line, area.width);
    }
    let body = Rect { y: body_at, height: area.bottom() - 1 - body_at, ..area };
    match &model.mode {
        Mode::Details { label, fields, scroll, .. } => panel::details(label, fields, *scroll, body, buffer),
        Mode::Help { scroll } => panel::help(*scroll, body, buffer),
        _ => table::draw(model, look, body, buffer),
    }
    if let Mode::Confirm { action, label } = &model.mode {
        panel::confirm(*action, label, &model.address, body, buffer);
    }
    if look.is_interactive {
        buffer.set_line(area.x, area.bottom() - 1, &last_line(model, look), area.width);
    }
    // The first row of the body has the headings.
    usize::from(body.height.saturating_sub(1))
}

fn last_line<'a>(model: &'a Model, look: Look) -> Line<'a> {
    if let Mode::Filter(text) = &model.mode {
        return Line::from(format!("filter: {text}_   Enter applies, Esc cancels"));
    }
    if let Mode::Confirm { .. } = model.mode {
        return Line::from("y confirms, n cancels");
    }
    if let Some(message) = model.message() {
        return Line::styled(message, Style::new().add_modifier(Modifier::BOLD));
    }
    if let Connection::Lost { why, .. } = &model.connection {
        return Line::styled(why.as_str(), look.bad());
    }
    match model.mode {
        Mode::Details { .. } | Mode::Help { .. } => Line::from("Esc closes   Up Down scrolls"),
        _ => Line::from("? help  q quit  Tab view  / filter  < > sort  Enter details  x act"),
    }
}

/// Draws a page with all rows, for a file or a pipe.
pub(super) fn page(model: &Model, look: Look, width: u16) -> String {
    let rows = model.visible().len();
    let height = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(PAGE_LINES_MAX);
    // A page needs room for its lines, whatever the width of the terminal.
    let area = Rect::new(0, 0, width.max(SIZE_MIN.0), height);
    let mut buffer = Buffer::empty(area);
    draw(model, look, area, &mut buffer);
    let text = plain_text(&buffer);
    format!("{}\n", text.trim_end())
}

/// Text of a picture, without the blanks at the ends of lines.
pub(super) fn plain_text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width.max(1)).map(|cells| {
        let mut line = String::new();
        let mut skip = 0;
        for cell in cells {
            // A wide character occupies the next cell too, which holds a blank.
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = Line::from(cell.symbol()).width().max(1);
            }
            skip -= 1;
        }
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}
