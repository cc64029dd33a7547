//! All that an executable declares, and how it differs from what another executable does.
//!
//! The table of a peer is what the peer says: it may be of any size and contents, and what is shown
//! of it is short and has no control characters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::schema::{SchemaCollector, Schemas};
use super::{RemoteMessage, TaskFn};
use crate::id::TypeHash;

/// How many differences of one message are shown: whoever sees these knows where to look.
const DIFFERENCES_MAX: usize = 5;

/// How many characters of a schema are shown.
const EXCERPT_CHARS_MAX: usize = 200;

/// How many of them come before the first difference, if the schema is longer.
const EXCERPT_CHARS_BEFORE: usize = 60;

/// The messages and tasks of an executable by their names, each with its schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaTable(BTreeMap<String, Declaration>);

/// How a message or a task is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Declaration {
    /// Its own schema; none if it is not known.
    own: Schemas,
    /// The schemas of the types that it names, by their names.
    parts: BTreeMap<String, Schemas>,
}

impl SchemaTable {
    /// Adds a declaration; to the one of that name, if there is one.
    pub(super) fn add(&mut self, name: &str, declared: Declaration) {
        let known = self.0.entry(name.to_owned()).or_default();
        known.own.extend(declared.own);
        for (part, schemas) in declared.parts {
            known.parts.entry(part).or_default().extend(schemas);
        }
    }

    /// A hash of all of it, the same for the same table on every machine.
    pub(super) fn digest(&self) -> u64 {
        let mut text = String::new();
        // A mark behind each piece, so that no two tables are one text.
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

    /// What stands in both tables and differs: its name, and how it does in words.
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

    /// How a message that the other side sends differs from what is expected here; `None` if it does
    /// not, as far as is known.
    fn difference(&self, theirs: &Self) -> Option<String> {
        if self.own.is_empty() || theirs.own.is_empty() {
            return None;
        }
        let own = [(String::new(), Some(&self.own), Some(&theirs.own))];
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

/// Both sides, each named by its part in the message's way: who reads this may be on either.
fn diff_excerpt(here: Option<&Schemas>, there: Option<&Schemas>) -> String {
    let text = |schemas: Option<&Schemas>| {
        schemas.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" or ")
    };
    let (receiver, sender) = (text(here), text(there));
    let alike = receiver.chars().zip(sender.chars()).take_while(|(one, other)| one == other).count();
    let show = |declared: Option<&Schemas>, text: &str| match declared {
        Some(_) => format!("`{}`", excerpt(text, alike)),
        None => "not declared".to_owned(),
    };
    format!("{} at the receiver, {} at the sender", show(here, &receiver), show(there, &sender))
}

/// What of a text is shown: all of it, or the surroundings of its character number `at`.
fn excerpt(text: &str, at: usize) -> String {
    let is_long = text.chars().nth(EXCERPT_CHARS_MAX).is_some();
    let start = if is_long { at.saturating_sub(EXCERPT_CHARS_BEFORE) } else { 0 };
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

    /// A table with one message, of these schemas: its own, and each part's with its name.
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
    fn only_what_differs_is_shown() {
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
    fn a_long_schema_is_shown_where_it_differs() {
        let fields = "a:u8,".repeat(1000);
        let here = table(&format!("struct M{{{fields}x:u8,{fields}}}"), &[]);
        let there = table(&format!("struct M{{{fields}y:u8,{fields}}}"), &[]);
        let shown = difference(&here, &there).unwrap();
        assert!(shown.contains("a:u8,x:u8,a:u8") && shown.contains("a:u8,y:u8,a:u8"), "{shown}");
        assert!(shown.len() < 500, "{shown}");
    }

    #[test]
    fn what_a_peer_makes_up_is_shown_in_bounds_and_without_control_characters() {
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
    fn the_digest_of_a_table_is_the_same_for_ever() {
        assert_eq!(SchemaTable::default().digest(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(table("struct M(P)", &[("P", "struct P")]).digest(), 0x4e6b_39c7_1138_5858);
    }

    #[test]
    fn a_table_travels() {
        let table = table("struct M(P)", &[("P", "struct P")]);
        let body = wire::encode(&table, usize::MAX, |body| Body {
            message: body.message.into(),
            attachments: body.attachments.into(),
        });
        assert_eq!(decode::<SchemaTable>(&body.unwrap()).unwrap(), table);
        let garbage = Body { message: b"\x81\xa1m\xc0"[..].into(), attachments: Box::default() };
        assert!(decode::<SchemaTable>(&garbage).is_err());
    }
}
