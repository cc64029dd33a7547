//! Collection of the schemas that a declaration consists of: its own, and those of the types it names.
//!
//! The macros record the types that a message, its result or a task names. Only the compiler knows which
//! of them have a schema, so each is queried through a [`Probe`]: method lookup selects [`Described`] for
//! a type that is [`RemoteData`], and [`Opaque`] for any other (autoref-based specialisation, after David
//! Tolnay).
//!
//! [`SchemaTable`](super::SchemaTable) compares the collected schemas.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use rustc_hash::FxHashSet;

use super::RemoteData;

/// Schemas under one name: a single one, unless several types share the name.
///
/// Types share a name by `#[remote(name = "..")]`, or if they are declared in two functions' bodies.
pub(super) type SchemaSet = BTreeSet<String>;

/// Schemas of the types that a declaration names, by name.
#[derive(Debug, Default)]
pub struct SchemaCollector {
    seen: FxHashSet<TypeId>,
    pub(super) schemas: BTreeMap<String, SchemaSet>,
}

impl SchemaCollector {
    fn add<T: RemoteData + ?Sized + 'static>(&mut self) {
        // A type may contain itself, and the recursion must end.
        if self.seen.insert(TypeId::of::<T>()) {
            self.schemas.entry(T::NAME.to_owned()).or_default().insert(T::SCHEMA.to_owned());
            T::collect_schemas(self);
        }
    }
}

/// Placeholder for the type `T`, which needs no value.
pub struct Probe<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Probe<T> {
    /// Creates the probe.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ?Sized> fmt::Debug for Probe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe<{}>", std::any::type_name::<T>())
    }
}

/// Type with a schema.
pub trait Described {
    /// Adds the type, and the types that it names.
    fn describe(&self, parts: &mut SchemaCollector);
}

/// Type without a schema; the schema of its container still has its name.
pub trait Opaque {
    /// Adds nothing.
    fn describe(&self, parts: &mut SchemaCollector);
}

impl<T: RemoteData + ?Sized + 'static> Described for Probe<T> {
    fn describe(&self, parts: &mut SchemaCollector) {
        parts.add::<T>();
    }
}

// For a reference, so that method lookup tries `Described` first.
impl<T: ?Sized> Opaque for &Probe<T> {
    fn describe(&self, _parts: &mut SchemaCollector) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Query in the form that the macros generate.
    macro_rules! query {
        ($ty:ty, $parts:expr) => {
            (&Probe::<$ty>::new()).describe($parts);
        };
    }

    struct Leaf;

    impl RemoteData for Leaf {
        const NAME: &'static str = "Leaf";
        const SCHEMA: &'static str = "struct Leaf";
    }

    /// Two types that name each other.
    struct Left;
    struct Right;

    impl RemoteData for Left {
        const NAME: &'static str = "Pair";
        const SCHEMA: &'static str = "struct Left(Right)";

        fn collect_schemas(parts: &mut SchemaCollector) {
            query!(Right, parts);
        }
    }

    impl RemoteData for Right {
        const NAME: &'static str = "Pair";
        const SCHEMA: &'static str = "struct Right(Left,Leaf)";

        fn collect_schemas(parts: &mut SchemaCollector) {
            query!(Left, parts);
            query!(Leaf, parts);
        }
    }

    #[track_caller]
    fn check(parts: &SchemaCollector, expected: &[(&str, &[&str])]) {
        let found = parts.schemas.iter().map(|(name, schemas)| (name.as_str(), Vec::from_iter(schemas)));
        assert_eq!(format!("{:?}", Vec::from_iter(found)), format!("{expected:?}"));
    }

    #[test]
    fn only_types_with_a_schema_add_theirs() {
        let mut parts = SchemaCollector::default();
        query!(Vec<Leaf>, &mut parts);
        query!(str, &mut parts);
        check(&parts, &[]);
        query!(Leaf, &mut parts);
        check(&parts, &[("Leaf", &["struct Leaf"])]);
    }

    #[test]
    fn types_that_contain_each_other_are_added_once_and_share_a_name() {
        let mut parts = SchemaCollector::default();
        query!(Left, &mut parts);
        check(
            &parts,
            &[("Leaf", &["struct Leaf"]), ("Pair", &["struct Left(Right)", "struct Right(Left,Leaf)"])],
        );
    }
}
