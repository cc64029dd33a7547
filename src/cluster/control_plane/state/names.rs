//! Owners of actor names, and numbers for actor type names.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::cluster::model::ActorKey;
use crate::config::CLASSES_MAX;

/// Owners of names, by namespace.
#[derive(Debug, Default)]
pub(super) struct Names(FxHashMap<String, FxHashMap<String, ActorKey>>);

impl Names {
    pub(super) fn owner(&self, namespace: &str, name: &str) -> Option<ActorKey> {
        self.0.get(namespace)?.get(name).copied()
    }

    /// Owners of a name in all namespaces.
    pub(super) fn owners<'a>(&'a self, name: &'a str) -> impl Iterator<Item = ActorKey> + 'a {
        self.0.values().filter_map(move |names| names.get(name).copied())
    }

    pub(super) fn claim(&mut self, namespace: &str, name: &str, owner: ActorKey) {
        self.0.entry(namespace.to_owned()).or_default().insert(name.to_owned(), owner);
    }

    pub(super) fn free(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.0.get_mut(namespace) else { return };
        names.remove(name);
        // Each job may have a namespace of its own, which would stay behind.
        if names.is_empty() {
            self.0.remove(namespace);
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, ActorKey)> {
        self.0.iter().flat_map(|(namespace, names)| {
            names.iter().map(|(name, owner)| (namespace.as_str(), name.as_str(), *owner))
        })
    }
}

/// Number of an actor's type name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class(u32);

/// Type names seen so far, at most [`CLASSES_MAX`]; a program has few types, so none is removed.
#[derive(Debug, Default)]
pub(super) struct Classes {
    numbers: FxHashMap<Arc<str>, Class>,
    names: Vec<Arc<str>>,
}

impl Classes {
    pub(super) fn number(&mut self, name: &str) -> Class {
        if let Some(class) = self.numbers.get(name) {
            return *class;
        }
        // No program has as many types. A member that invents names must not use up the head's memory,
        // so the excess shares the last number.
        if self.names.len() >= CLASSES_MAX {
            return Class(u32::try_from(CLASSES_MAX - 1).expect("CLASSES_MAX fits in 32 bits"));
        }
        let class = Class(u32::try_from(self.names.len()).expect("there are at most CLASSES_MAX types"));
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, class);
        class
    }

    pub(super) fn name(&self, class: Class) -> &str {
        &self.names[class.0 as usize]
    }

    pub(super) fn shared_name(&self, class: Class) -> Arc<str> {
        Arc::clone(&self.names[class.0 as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_are_bounded_and_known_ones_keep_their_numbers() {
        let mut classes = Classes::default();
        let first = classes.number("first");
        for n in 1..CLASSES_MAX {
            classes.number(&format!("type {n}"));
        }
        let [last, beyond, again] =
            [CLASSES_MAX - 1, CLASSES_MAX, CLASSES_MAX + 1].map(|n| classes.number(&format!("type {n}")));
        assert!(last == beyond && last == again && last != first);
        assert_eq!((classes.names.len(), classes.number("first")), (CLASSES_MAX, first));
        assert_eq!(classes.name(first), "first");
    }
}
