//! What a worker is called beside its lines.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What lives in a worker, as a reader of its output knows it.
#[derive(Debug, Default)]
pub(crate) struct Label(Mutex<BTreeSet<String>>);

impl Label {
    /// Takes note of a type of actors.
    pub(crate) fn add(&self, class: &str) {
        let mut classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // With two it has no name of its own, and more of them change nothing.
        if classes.len() < 2 && !classes.contains(class) {
            classes.insert(class.to_owned());
        }
    }

    /// The type of its actors if they are of one, without its module.
    pub(crate) fn text(&self) -> String {
        let classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (classes.len(), classes.first()) {
            (1, Some(class)) => class.rsplit("::").next().unwrap_or(class).to_owned(),
            _ => "worker".to_owned(),
        }
    }
}
