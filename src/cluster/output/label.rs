//! Label of a worker's output lines.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Classes of the actors in a worker, as far as its label depends on them.
#[derive(Debug, Default)]
pub(crate) struct Label(Mutex<BTreeSet<String>>);

impl Label {
    /// Adds a class of actors.
    pub(crate) fn add(&self, class: &str) {
        let mut classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two classes make the label "worker"; more of them change nothing, so the set stays small.
        if classes.len() < 2 && !classes.contains(class) {
            classes.insert(class.to_owned());
        }
    }

    /// Class of the worker's actors, without its module, if they have one class; otherwise "worker".
    pub(crate) fn text(&self) -> String {
        let classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (classes.len(), classes.first()) {
            (1, Some(class)) => class.rsplit("::").next().unwrap_or(class).to_owned(),
            _ => "worker".to_owned(),
        }
    }
}
