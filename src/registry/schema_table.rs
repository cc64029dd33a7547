//! Declarations of an executable's messages and tasks, and their differences from another executable's.
//!
//! The table of a peer is untrusted: it may have any size and content. Texts that quote it are short and
//! free of control characters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::schema::{SchemaCollector, SchemaSet};
use super::{RemoteMessage, TaskFn};
use crate::id::TypeHash;

/// Maximum number of differences shown for one message; they suffice to find the cause.
const DIFFERENCES_MAX: usize = 5;

/// Maximum number of characters of a schema that are shown.
const EXCERPT_CHARS_MAX: usize = 200;

/// Number of those characters before the first difference, in a schema that is longer.
const EXCERPT_CHARS_BEFORE: usize = 60;

/// Messages and tasks of an executable by name, each with its schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaTable(BTreeMap<String, Declaration>);

/// Declaration of a message or a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Declaration {
    /// Its own schemas; empty if unknown.
    own: SchemaSet,
    /// Schemas of the types that it names, by name.
    parts: BTreeMap<String, SchemaSet>,
}

impl SchemaTable {
    /// Adds a declaration, merged into one of the same name.
    pub(super) fn add(&mut self, name: &str, declared: Declaration) {
        let known = self.0.entry(name.to_owned()).or_default();
        known.own.extend(declared.own);
        for (part, schemas) in declared.parts {
            known.parts.entry(part).or_default().extend(schemas);
        }
    }

    /// Hash of the whole table, equal for equal tables on every machine.
    pub(super) fn digest(&self) -> u64 {
        let mut text = String::new();
        // A mark after each piece keeps different tables from producing the same text.
        let mut push = |mark: char, piece: &str| {
            text.push_str(piece);
            text.push(mark);
        };
        for (name, declaration) in &self.0 {
            push('\0', name);
            declaration.own.iter().for_each(|schema| push('\u{1}', schema));
            for (part, schemas) in &declaration.parts {
                push('\u{2}', part);
                schemas.iter().for_each(|schema| push('\u{3}', schema));
            }
        }
        TypeHash::of(&text).0
    }

    /// Declarations in both tables that differ: their names, and the differences as text.
    pub(super) fn differences<'a>(&'a self, theirs: &'a Self) -> impl Iterator<Item = (&'a str, String)> {
        self.0.iter().filter_map(|(name, declaration)| {
            let difference = declaration.difference(theirs.0.get(name)?)?;
            Some((name.as_str(), difference))
        })
    }
}

impl Declaration {
    pub(super) fn of_message<M: RemoteMessage>() -> Self {
        Self::new(M::SCHEMA, M::collect_schemas)
    }

    pub(super) fn of_task<F: TaskFn>() -> Self {
        Self::new(F::SCHEMA, F::collect_schemas)
    }

    fn new(schema: &str, add_parts: fn(&mut SchemaCollector)) -> Self {
        let mut parts = SchemaCollector::default();
        add_parts(&mut parts);
        let own = Some(schema).filter(|schema| !schema.is_empty()).map(str::to_owned);
        Self { own: own.into_iter().collect(), parts: parts.schemas }
    }

    /// Difference between this declaration and the sender's; `None` if they agree or one is unknown.
    fn difference(&self, theirs: &Self) -> Option<String> {
        // An unknown schema matches everything, since no difference can be shown.
        if self.own.is_empty() || theirs.own.is_empty() {
            return None;
        }
        let own = [(String::new(), Some(&self.own), Some(&theirs.own))];
        // Types of both sides: one may be declared on one side only.
        let names: BTreeSet<_> = self.parts.keys().chain(theirs.parts.keys()).collect();
        let parts = names.into_iter().map(|name| {
            (format!("`{}` is ", excerpt(name, 0)), self.parts.get(name), theirs.parts.get(name))
        });
        let mut differing = own.into_iter().chain(parts).filter(|(_, here, there)| here != there);
        let mut shown = Vec::new();
        for (label, here, there) in differing.by_ref().take(DIFFERENCES_MAX) {
            shown.push(label + &diff_excerpt(here, there));
        }
        match differing.count() {
            0 => {}
            more => shown.push(format!("and {more} more")),
        }
        (!shown.is_empty()).then(|| shown.join("; "))
    }
}

/// Text with both sides, each named by its role, since the reader may be on either.
fn diff_excerpt(here: Option<&SchemaSet>, there: Option<&SchemaSet>) -> String {
    let text = |schemas: Option<&SchemaSet>| {
        schemas.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" or ")
    };
    let (receiver, sender) = (text(here), text(there));
    let alike = receiver.chars().zip(sender.chars()).take_while(|(one, other)| one == other).count();
    let show = |declared: Option<&SchemaSet>, text: &str| match declared {
        Some(_) => format!("`{}`", excerpt(text, alike)),
        None => "not declared".to_owned(),
    };
    format!("{} at the receiver, {} at the sender", show(here, &receiver), show(there, &sender))
}

/// Excerpt of a text: all of it, or the part around character `at`.
fn excerpt(text: &str, at: usize) -> String {
    let is_long = text.chars().nth(EXCERPT_CHARS_MAX).is_some();
    let start = if is_long { at.saturating_sub(EXCERPT_CHARS_BEFORE) } else { 0 };
    // A terminal or log viewer would interpret control characters.
    let mut rest = text.chars().skip(start).map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut excerpt = if start > 0 { "..".to_owned() } else { String::new() };
    excerpt.extend(rest.by_ref().take(EXCERPT_CHARS_MAX));
    if rest.next().is_some() {
        excerpt.push_str("..");
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::decode;
    use crate::wire::{self, Body};

    /// Table with one message: its own schema, and the schema of each named type.
    fn table(own: &str, parts: &[(&str, &str)]) -> SchemaTable {
        let parts = parts.iter().map(|(name, schema)| (name.to_string(), [schema.to_string()].into()));
        let own = Some(own.to_owned()).filter(|own| !own.is_empty());
        let mut table = SchemaTable::default();
        table.add("m", Declaration { own: own.into_iter().collect(), parts: parts.collect() });
        table
    }

    fn difference(here: &SchemaTable, there: &SchemaTable) -> Option<String> {
        let mut differences = here.differences(there);
        let (name, difference) = differences.next()?;
        assert_eq!((name, differences.next()), ("m", None));
        Some(difference)
    }

    #[track_caller]
    fn check(here: &SchemaTable, there: &SchemaTable, expected: &str) {
        assert_eq!(difference(here, there).as_deref(), Some(expected));
        assert_ne!(here.digest(), there.digest());
    }

    #[test]
    fn only_differing_declarations_are_shown() {
        check(
            &table("struct M(u64)", &[("P", "struct P"), ("Q", "struct Q")]),
            &table("struct M(u32)", &[("P", "struct P"), ("Q", "struct Q")]),
            "`struct M(u64)` at the receiver, `struct M(u32)` at the sender",
        );
        check(
            &table("struct M", &[("P", "struct P(u8)"), ("Q", "struct Q"), ("S", "struct S")]),
            &table("struct M", &[("P", "struct P(u16)"), ("R", "struct R"), ("S", "struct S")]),
            "`P` is `struct P(u8)` at the receiver, `struct P(u16)` at the sender; \
             `Q` is `struct Q` at the receiver, not declared at the sender; \
             `R` is not declared at the receiver, `struct R` at the sender",
        );
    }

    #[test]
    fn equal_declarations_do_not_differ_and_an_unknown_one_differs_from_none() {
        let known = table("struct M", &[("P", "struct P")]);
        let unknown = table("", &[]);
        assert_eq!(difference(&known, &known.clone()), None);
        assert_eq!(difference(&known, &unknown), None);
        assert_eq!(difference(&unknown, &known), None);
        assert_eq!(difference(&known, &SchemaTable::default()), None);
    }

    #[test]
    fn two_types_of_one_name_are_both_shown_in_any_order() {
        let (one, other) = (table("struct A", &[]), table("struct B", &[]));
        let mut both = one.clone();
        both.add("m", other.0["m"].clone());
        let mut reversed = other;
        reversed.add("m", one.0["m"].clone());
        assert_eq!(both.digest(), reversed.digest());
        assert_eq!(both, reversed);
        check(&both, &one, "`struct A or struct B` at the receiver, `struct A` at the sender");
    }

    #[test]
    fn a_long_schema_is_shown_around_its_difference() {
        let fields = "a:u8,".repeat(1000);
        let here = table(&format!("struct M{{{fields}x:u8,{fields}}}"), &[]);
        let there = table(&format!("struct M{{{fields}y:u8,{fields}}}"), &[]);
        let shown = difference(&here, &there).unwrap();
        assert!(shown.contains("a:u8,x:u8,a:u8") && shown.contains("a:u8,y:u8,a:u8"), "{shown}");
        assert!(shown.len() < 500, "{shown}");
    }

    #[test]
    fn a_hostile_table_is_shown_in_bounds_and_without_control_characters() {
        let here = table("struct M", &[]);
        let names: Vec<_> = (0..1000).map(|n| format!("{n:04}\u{1b}[2J{}", "ä".repeat(10_000))).collect();
        let schema = "\n".repeat(10_000);
        let parts: Vec<_> = names.iter().map(|name| (name.as_str(), schema.as_str())).collect();
        let there = table(&schema, &parts);
        let shown = difference(&here, &there).unwrap();
        assert!(shown.ends_with("; and 996 more"), "{shown}");
        assert!(shown.chars().count() < 3000 && !shown.contains(char::is_control), "{shown}");
    }

    #[test]
    fn the_digest_of_a_table_is_stable_across_releases() {
        assert_eq!(SchemaTable::default().digest(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(table("struct M(P)", &[("P", "struct P")]).digest(), 0x4e6b_39c7_1138_5858);
    }

    #[test]
    fn a_table_round_trips_and_garbage_is_rejected() {
        let table = table("struct M(P)", &[("P", "struct P")]);
        let body = wire::encode(&table, usize::MAX, |body| Body {
            message: body.message.into(),
            attachments: body.attachments.into(),
            trace: None,
        });
        assert_eq!(decode::<SchemaTable>(&body.unwrap()).unwrap(), table);
        let garbage = Body { message: b"\x81\xa1m\xc0"[..].into(), ..Body::empty() };
        assert!(decode::<SchemaTable>(&garbage).is_err());
    }
}
