//! Log of a simulated run, and the guarantees that it violates.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Log of all events with their virtual times. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Mutex<JournalState>>);

#[derive(Debug)]
struct JournalState {
    begin: Instant,
    lines: Vec<String>,
    violations: Vec<String>,
}

impl Journal {
    pub(super) fn new() -> Self {
        let state = JournalState { begin: Instant::now(), lines: Vec::new(), violations: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Adds a line.
    pub fn note(&self, what: impl Display) {
        let mut state = self.lock();
        let micros = state.begin.elapsed().as_micros();
        tracing::debug!(micros, "{what}");
        state.lines.push(format!("{micros:>10} {what}"));
    }

    /// Adds the violation of a guarantee.
    pub fn violation(&self, what: impl Display) {
        self.note(format_args!("VIOLATION {what}"));
        self.lock().violations.push(what.to_string());
    }

    /// Returns all lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Returns the violations so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Time since the last line that contains a text.
    #[must_use]
    pub fn since_last(&self, text: &str) -> Option<Duration> {
        let state = self.lock();
        let last = state.lines.iter().rev().find(|line| line.contains(text))?;
        let micros = last.split_ascii_whitespace().next()?.parse().ok()?;
        Some(state.begin.elapsed().saturating_sub(Duration::from_micros(micros)))
    }

    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
