//! Keys of `top`, and what each does.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Effect, FILTER_CHARS_MAX, Mode, Model};
use super::sample::View;

/// Help text: a key and its effect in each line.
pub(super) const HELP: &[(&str, &str)] = &[
    ("1-5, Tab", "show nodes, jobs, actors, workers or tasks"),
    ("Up Down, k j", "move; PgUp PgDn by a page, Home End to an end"),
    ("< >", "sort by the column to the left or right"),
    ("r", "reverse the order"),
    ("/", "filter: words that a row contains, KEY=VALUE or KEY!=VALUE"),
    ("Esc", "remove the filter, or close what is open"),
    ("Enter", "show all fields of the selected row"),
    ("x", "drain the node, stop the job or kill the actor; asks before"),
    ("u", "update immediately"),
    ("Ctrl-L", "draw the screen again"),
    ("Ctrl-Z", "suspend; `fg` continues"),
    ("q, Ctrl-C", "quit"),
];

impl Model {
    /// Handles a key in the part of the screen that has the keys.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Effect::Quit),
                KeyCode::Char('z') => Some(Effect::Suspend),
                KeyCode::Char('l') => Some(Effect::Redraw),
                _ => None,
            };
        }
        self.clear_message();
        match &self.mode {
            Mode::Table => self.table_key(key.code),
            Mode::Filter(_) => self.filter_key(key.code),
            Mode::Confirm { .. } => self.confirm_key(key.code),
            Mode::Details { scroll, .. } | Mode::Help { scroll } => {
                let scroll = *scroll;
                self.panel_key(key.code, scroll);
                None
            }
        }
    }

    fn table_key(&mut self, key: KeyCode) -> Option<Effect> {
        let (at, page) = (self.state().position, self.page_rows.max(1));
        match key {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('u') => return Some(Effect::Refresh),
            KeyCode::Char(digit @ '1'..='5') => {
                return self.show(usize::from(digit as u8 - b'1'));
            }
            KeyCode::Tab | KeyCode::Right => return self.show(self.view.index() + 1),
            KeyCode::BackTab | KeyCode::Left => return self.show(self.view.index() + View::ALL.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(at + 1),
            KeyCode::PageUp => self.select(at.saturating_sub(page)),
            KeyCode::PageDown => self.select(at + page),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('<') => self.sort_by(-1),
            KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Char('/') => self.mode = Mode::Filter(self.state().filter.clone()),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help { scroll: 0 },
            KeyCode::Enter => self.open_details(),
            KeyCode::Char('x') => self.ask(),
            KeyCode::Esc if !self.state().filter.is_empty() => return self.filter_by(String::new()),
            _ => {}
        }
        None
    }

    /// Shows a view; its index counts on after the last one.
    fn show(&mut self, index: usize) -> Option<Effect> {
        self.view = View::ALL[index % View::ALL.len()];
        Some(Effect::Want(self.wanted()))
    }

    /// Sorts by another column, or by the order of the head before the first one.
    fn sort_by(&mut self, step: isize) {
        let columns = self.table.as_ref().map_or(0, |table| table.headings.len());
        let sort = &mut self.state_mut().sort;
        // The order of the head is one position more than there are columns.
        let positions = columns as isize + 1;
        let now = sort.column.map_or(0, |column| column as isize + 1);
        let next = (now + step).rem_euclid(positions);
        (sort.column, sort.is_descending) = (usize::try_from(next - 1).ok(), false);
        self.follow();
    }

    fn reverse(&mut self) {
        match self.state().sort.column {
            None => self.say("choose a column with < or > before reversing the order"),
            Some(_) => {
                let sort = &mut self.state_mut().sort;
                sort.is_descending = !sort.is_descending;
                self.follow();
            }
        }
    }

    fn filter_by(&mut self, text: String) -> Option<Effect> {
        self.state_mut().filter = text;
        self.follow();
        Some(Effect::Want(self.wanted()))
    }

    fn filter_key(&mut self, key: KeyCode) -> Option<Effect> {
        let Mode::Filter(text) = &mut self.mode else { return None };
        match key {
            KeyCode::Esc => self.mode = Mode::Table,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(c) if !c.is_control() && text.chars().count() < FILTER_CHARS_MAX => text.push(c),
            KeyCode::Enter => {
                let text = std::mem::take(text);
                self.mode = Mode::Table;
                return self.filter_by(text.trim().to_owned());
            }
            _ => {}
        }
        None
    }

    fn open_details(&mut self) {
        let Some((key, label)) = self.selected().map(|row| (row.key.clone(), row.label.clone())) else {
            return;
        };
        let fields = self.table.as_ref().and_then(|table| table.source.fields(&key)).unwrap_or_default();
        self.mode = Mode::Details { key, label, fields, scroll: 0 };
    }

    /// Opens the confirmation of the selected row's action.
    fn ask(&mut self) {
        match self.selected().map(|row| (row.action, row.label.clone())) {
            None => self.say("select a row first"),
            Some((Err(why), _)) => self.say(why),
            Some((Ok(action), label)) => self.mode = Mode::Confirm { action, label },
        }
    }

    fn confirm_key(&mut self, key: KeyCode) -> Option<Effect> {
        let Mode::Confirm { action, .. } = self.mode else { return None };
        // Only `y`: Enter also opens the details, and would confirm by mistake.
        match key {
            KeyCode::Char('y' | 'Y') => {
                self.mode = Mode::Table;
                Some(Effect::Act(action))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.mode = Mode::Table;
                self.say("nothing was done");
                None
            }
            _ => None,
        }
    }

    fn panel_key(&mut self, key: KeyCode, scroll: usize) {
        let page = self.page_rows.max(1);
        let scroll = match key {
            KeyCode::Up | KeyCode::Char('k') => scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => scroll + 1,
            KeyCode::PageUp => scroll.saturating_sub(page),
            KeyCode::PageDown => scroll + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?' | 'h') => {
                self.mode = Mode::Table;
                return;
            }
            _ => scroll,
        };
        // The view knows the number of lines, and shows at most the last ones.
        let scroll = scroll.min(self.panel_lines().saturating_sub(1));
        match &mut self.mode {
            Mode::Details { scroll: shown, .. } | Mode::Help { scroll: shown } => *shown = scroll,
            Mode::Table | Mode::Filter(_) | Mode::Confirm { .. } => {}
        }
    }

    fn panel_lines(&self) -> usize {
        match &self.mode {
            Mode::Details { fields, .. } => fields.len(),
            _ => HELP.len(),
        }
    }
}
