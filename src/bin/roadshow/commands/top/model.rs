//! State of the screen, as a pure state machine: events and the time in, effects out.

use std::time::Duration;

use roadshow::admin::{Filter, Query};

use super::columns::{Action, Cell, Facts, Field, Heading, Row};
use super::poller::Report;
use super::rates::Rates;
use super::sample::{Rows, Sample, Summary, View, Wanted};
use crate::cli::values::FilterArg;
use crate::output::table::safe;

/// Time for which a message stays in the last line.
const MESSAGE_TIME: Duration = Duration::from_secs(8);

/// Maximum length of a filter text, in characters.
pub(super) const FILTER_CHARS_MAX: usize = 100;

/// Input of the state machine.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Key(crossterm::event::KeyEvent),
    Report(Report),
    /// Time has passed: ages and pauses on the screen change.
    Tick,
}

/// Output of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Suspend,
    /// Draw every cell again, after another program has written to the terminal.
    Redraw,
    /// Ask the head for another selection.
    Want(Wanted),
    Refresh,
    Act(Action),
}

/// Order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sort {
    /// Index of a column; `None` for the order of the head.
    pub(super) column: Option<usize>,
    pub(super) is_descending: bool,
}

/// State of one view, which it keeps while another one is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct ViewState {
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// Key and position of the selected row.
    selected: Option<String>,
    pub(super) position: usize,
}

/// Part of the screen that has the keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    Table,
    /// Text of the filter before it is applied.
    Filter(String),
    /// Fields of a row, which may have left the table since.
    Details {
        key: String,
        label: String,
        fields: Vec<Field>,
        scroll: usize,
    },
    Confirm {
        action: Action,
        label: String,
    },
    Help {
        scroll: usize,
    },
}

/// Connection as the screen shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// No sample has arrived yet.
    Opening,
    Live,
    Lost {
        why: String,
        retry_at: Duration,
    },
}

/// Table of the latest sample.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) view: View,
    pub(super) headings: Vec<Heading>,
    pub(super) rows: Vec<Row>,
    /// The same rows, with all their fields.
    pub(super) source: Rows,
    /// Number of rows that the head left out.
    pub(super) more: u64,
}

/// State of the screen.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) address: String,
    pub(super) view: View,
    views: [ViewState; View::ALL.len()],
    pub(super) mode: Mode,
    pub(super) connection: Connection,
    pub(super) summary: Option<Summary>,
    pub(super) table: Option<Table>,
    pub(super) rates: Rates,
    /// Time of the latest sample.
    pub(super) sampled_at: Duration,
    message: Option<(String, Duration)>,
    /// Time of the latest event, since the start.
    pub(super) now: Duration,
    /// Number of table rows on the screen, for a page up or down.
    pub(super) page_rows: usize,
}

/// Row of the header's counters in the rates.
pub(super) const CLUSTER: &str = "";

impl Model {
    pub(super) fn new(address: String, view: View) -> Self {
        Self {
            address,
            view,
            views: Default::default(),
            mode: Mode::Table,
            connection: Connection::Opening,
            summary: None,
            table: None,
            rates: Rates::NONE,
            sampled_at: Duration::ZERO,
            message: None,
            now: Duration::ZERO,
            page_rows: 10,
        }
    }

    /// Handles an event. `now` counts from the start; `now_ms` is the wall clock, for ages of jobs.
    pub(super) fn update(&mut self, now: Duration, now_ms: u64, event: Event) -> Option<Effect> {
        self.now = now;
        match event {
            Event::Key(key) => self.key(key),
            Event::Report(Report::Sample(sample)) => {
                self.sample(*sample, now_ms);
                None
            }
            Event::Report(Report::Lost { why, retry_in }) => {
                // The cause of the loss takes the last line.
                self.clear_message();
                self.connection = Connection::Lost { why: safe(&why), retry_at: now + retry_in };
                None
            }
            Event::Report(Report::Acted(text)) => {
                self.say(safe(&text));
                None
            }
            Event::Tick => None,
        }
    }

    fn sample(&mut self, sample: Sample, now_ms: u64) {
        self.connection = Connection::Live;
        self.sampled_at = self.now;
        let tasks = sample.summary.tasks;
        let counters = vec![("done", tasks.finished + tasks.failed)];
        let rows = sample.rows.counters().into_iter().chain([(CLUSTER.to_owned(), counters)]);
        self.rates.update(self.now, rows);
        self.summary = Some(sample.summary);
        // A reply to an earlier selection would show rows that the filter excludes.
        if sample.wanted == self.wanted() {
            let facts = Facts { now_ms, rates: &self.rates };
            let (headings, rows) = (sample.rows.headings(), sample.rows.converted(&facts));
            if let Mode::Details { key, fields, .. } = &mut self.mode
                && let Some(newer) = sample.rows.fields(key)
            {
                *fields = newer;
            }
            let (source, more) = (sample.rows, sample.more);
            self.table = Some(Table { view: self.view, headings, rows, source, more });
            self.follow();
        }
    }

    pub(super) fn state(&self) -> &ViewState {
        &self.views[self.view.index()]
    }

    pub(super) fn state_mut(&mut self) -> &mut ViewState {
        &mut self.views[self.view.index()]
    }

    /// Selection for the head: the view, and the words of the filter that are conditions on fields.
    pub(super) fn wanted(&self) -> Wanted {
        let words = self.state().filter.split_whitespace();
        Wanted { view: self.view, conditions: words.filter_map(|word| self.condition(word)).collect() }
    }

    /// Condition for the head, if the word is a valid one for the view.
    fn condition(&self, word: &str) -> Option<Filter> {
        let FilterArg(filter) = word.parse().ok()?;
        let query = Query::filtered(vec![filter.clone()]);
        query.check(super::kind(self.view)).ok().map(|()| filter)
    }

    /// Rows that contain all words of the filter, in the chosen order.
    pub(super) fn visible(&self) -> Vec<&Row> {
        let Some(table) = self.table.as_ref().filter(|table| table.view == self.view) else {
            return Vec::new();
        };
        let state = self.state();
        let words = state.filter.split_whitespace().filter(|word| self.condition(word).is_none());
        let words: Vec<String> = words.map(str::to_lowercase).collect();
        let contains = |row: &&Row| {
            let has = |text: &str, word: &String| text.to_lowercase().contains(word);
            words
                .iter()
                .all(|word| row.cells.iter().any(|cell| has(cell.shown(), word)) || has(&row.label, word))
        };
        let mut rows: Vec<&Row> = table.rows.iter().filter(contains).collect();
        if let Some(column) = state.sort.column {
            // Stable, so rows with equal cells stay in the order of the head.
            rows.sort_by(|one, other| compare(one, other, column, state.sort.is_descending));
        }
        rows
    }

    pub(super) fn selected(&self) -> Option<&Row> {
        self.visible().get(self.state().position).copied()
    }

    /// Selects the row at a position, as far as there is one.
    pub(super) fn select(&mut self, position: usize) {
        let rows = self.visible();
        let position = position.min(rows.len().saturating_sub(1));
        let key = rows.get(position).map(|row| row.key.clone());
        let state = self.state_mut();
        (state.position, state.selected) = (position, key);
    }

    /// Moves the selection to the row that had it, which may be elsewhere in the new rows.
    pub(super) fn follow(&mut self) {
        let state = self.state();
        let rows = self.visible();
        let found = rows.iter().position(|row| Some(&row.key) == state.selected.as_ref());
        let position = found.unwrap_or(state.position);
        self.select(position);
    }

    /// Shows a message in the last line.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.message = Some((text.into(), self.now + MESSAGE_TIME));
    }

    pub(super) fn message(&self) -> Option<&str> {
        self.message.as_ref().filter(|(_, until)| self.now < *until).map(|(text, _)| text.as_str())
    }

    pub(super) fn clear_message(&mut self) {
        self.message = None;
    }
}

/// Order of two rows by a column. Missing values are last in both directions.
fn compare(one: &Row, other: &Row, column: usize, is_descending: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let ordered = match (&one.cells[column], &other.cells[column]) {
        (Cell::Missing, Cell::Missing) => return Ordering::Equal,
        (Cell::Missing, _) => return Ordering::Greater,
        (_, Cell::Missing) => return Ordering::Less,
        (Cell::Number(one, _), Cell::Number(other, _)) => one.total_cmp(other),
        (one, other) => one.shown().to_lowercase().cmp(&other.shown().to_lowercase()),
    };
    if is_descending { ordered.reverse() } else { ordered }
}
