//! What a declaration consists of: its own schema, and those of the types that it names.
//!
//! The macros write down the types that a message, its result or a task names. Which of them have a
//! schema is known only to the compiler, so each is asked through a [`Probe`]: method lookup takes
//! [`Described`] for a type that is [`RemoteData`], and [`Opaque`] for any other (autoref-based
//! specialisation, after David Tolnay).
//!
//! Owns the collecting. What is done with the schemas is [`SchemaTable`](super::SchemaTable)'s.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use rustc_hash::FxHashSet;

use super::RemoteData;

/// Schemas under one name: a single one, unless several types share the name.
///
/// They do where `#[remote(name = "..")]` says so, and types of two functions' bodies do.
pub(super) type Schemas = BTreeSet<String>;

/// The schemas of the types that a declaration names, by the types' names.
#[derive(Debug, Default)]
pub struct SchemaCollector {
    seen: FxHashSet<TypeId>,
    pub(super) schemas: BTreeMap<String, Schemas>,
}

impl SchemaCollector {
    fn add<T: RemoteData + ?Sized + 'static>(&mut self) {
        // A type may contain itself.
        if self.seen.insert(TypeId::of::<T>()) {
            self.schemas.entry(T::NAME.to_owned()).or_default().insert(T::SCHEMA.to_owned());
            T::collect_schemas(self);
        }
    }
}

/// Stands for the type `T`, of which there need be no value.
pub struct Probe<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Probe<T> {
    /// The probe.
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

/// A type with a schema.
pub trait Described {
    /// Adds the type, and the types that it names.
    fn describe(&self, parts: &mut SchemaCollector);
}

/// A type without one: its name, which stands in the schema of what contains it, is all there is.
pub trait Opaque {
    /// Adds nothing.
    fn describe(&self, parts: &mut SchemaCollector);
}

impl<T: RemoteData + ?Sized + 'static> Described for Probe<T> {
    fn describe(&self, parts: &mut SchemaCollector) {
        parts.add::<T>();
    }
}

impl<T: ?Sized> Opaque for &Probe<T> {
    fn describe(&self, _parts: &mut SchemaCollector) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is generated.
    macro_rules! ask {
        ($ty:ty, $parts:expr) => {
            (&Probe::<$ty>::new()).describe($parts);
        };
    }

    struct Leaf;

    impl RemoteData for Leaf {
        const NAME: &'static str = "Leaf";
        const SCHEMA: &'static str = "struct Leaf";
    }

    /// Two that name each other.
    struct Left;
    struct Right;

    impl RemoteData for Left {
        const NAME: &'static str = "Pair";
        const SCHEMA: &'static str = "struct Left(Right)";

        fn collect_schemas(parts: &mut SchemaCollector) {
            ask!(Right, parts);
        }
    }

    impl RemoteData for Right {
        const NAME: &'static str = "Pair";
        const SCHEMA: &'static str = "struct Right(Left,Leaf)";

        fn collect_schemas(parts: &mut SchemaCollector) {
            ask!(Left, parts);
            ask!(Leaf, parts);
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
        ask!(Vec<Leaf>, &mut parts);
        ask!(str, &mut parts);
        check(&parts, &[]);
        ask!(Leaf, &mut parts);
        check(&parts, &[("Leaf", &["struct Leaf"])]);
    }

    #[test]
    fn types_that_contain_each_other_are_added_once_and_share_a_name() {
        let mut parts = SchemaCollector::default();
        ask!(Left, &mut parts);
        check(
            &parts,
            &[("Leaf", &["struct Leaf"]), ("Pair", &["struct Left(Right)", "struct Right(Left,Leaf)"])],
        );
    }
}
