//! Panels over the table: fields of a row, help, and the confirmation of an action.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use crate::commands::top::columns::{Action, Field};
use crate::commands::top::keys::HELP;

/// Maximum width of the confirmation.
const CONFIRM_WIDTH_MAX: u16 = 72;

/// Height of the confirmation with its border: a long name takes three lines.
const CONFIRM_HEIGHT: u16 = 9;

/// Draws all fields of a row.
pub(super) fn details(label: &str, fields: &[Field], scroll: usize, area: Rect, buffer: &mut Buffer) {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = fields.iter().map(|(name, value)| entry(name, value, width)).collect();
    panel(label, lines, scroll, area, buffer);
}

/// Draws the keys.
pub(super) fn help(scroll: usize, area: Rect, buffer: &mut Buffer) {
    let width = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let lines = HELP.iter().map(|(keys, effect)| entry(keys, effect, width)).collect();
    panel("Keys", lines, scroll, area, buffer);
}

fn entry<'a>(name: &'a str, value: &'a str, width: usize) -> Line<'a> {
    let name = Span::styled(format!("{name:<width$}"), Style::new().add_modifier(Modifier::BOLD));
    Line::from(vec![name, Span::raw("  "), Span::raw(value)])
}

fn panel(title: &str, lines: Vec<Line<'_>>, scroll: usize, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'_>> = lines.into_iter().skip(scroll).collect();
    let block = Block::bordered().title(format!(" {title} "));
    Paragraph::new(lines).wrap(Wrap { trim: false }).block(block).render(area, buffer);
}

/// Draws the question before an action, with the name of the thing and the address of its cluster.
///
/// Without an address the command takes the newest session, which may not be the cluster that is meant.
pub(super) fn confirm(action: Action, label: &str, address: &str, area: Rect, buffer: &mut Buffer) {
    let width = area.width.min(CONFIRM_WIDTH_MAX);
    let height = area.height.min(CONFIRM_HEIGHT);
    let box_area =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(box_area, buffer);
    let lines = vec![
        Line::styled(format!("{} the {label}?", action.verb()), Style::new().add_modifier(Modifier::BOLD)),
        Line::from(format!("Cluster at {address}")),
        Line::from(action.effect()),
        Line::from("y = yes, n = no"),
    ];
    let block = Block::bordered().title(format!(" {} ", action.verb()));
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block).render(box_area, buffer);
}
