//! Values of a row's fields, and the conditions on them.

use std::cmp::Ordering;

use super::keys::{KeyKind, Kind};
use super::{Filter, QueryError, UNSORTED, is_meant};

/// Validated filter, with its value parsed for every type of field.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Condition {
    pub(in crate::cluster) key: &'static str,
    text: String,
    /// Value parsed as a decimal number, if it is one.
    number: Option<i64>,
    /// Value parsed as a hexadecimal id, if it is one.
    id: Option<u64>,
    is_equal: bool,
}

/// Text to search for in the fields of a row.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Needle {
    text: String,
    /// Text without leading zeros if it can be part of an id.
    digits: Option<String>,
    keys: Vec<&'static str>,
}

impl Needle {
    pub(in crate::cluster) fn new(text: &str, kind: Kind) -> Self {
        let is_searched = |key: &&str| *key != UNSORTED;
        let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self {
            text: text.to_owned(),
            // A text of zeros alone would be part of every id.
            digits: are_digits
                .then(|| text.trim_start_matches('0').to_ascii_lowercase())
                .filter(|digits| !digits.is_empty()),
            keys: kind.forms().iter().map(|(key, _)| *key).filter(is_searched).collect(),
        }
    }

    /// Checks if a field of the row contains the text.
    pub(in crate::cluster) fn is_in<'a>(&self, field: impl Fn(&'static str) -> Value<'a>) -> bool {
        self.keys.iter().any(|key| match field(key) {
            Value::Id(id) => self.digits.as_ref().is_some_and(|digits| format!("{id:x}").contains(digits)),
            Value::Text(text) => contains_ignoring_case(text, &self.text),
            Value::Made(text) => contains_ignoring_case(&text, &self.text),
            Value::Nothing | Value::Number(_) | Value::Flag(_) => false,
        })
    }
}

fn contains_ignoring_case(text: &str, part: &str) -> bool {
    // Without an allocation for each of a million rows; the names of programs are ASCII nearly always.
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// Value of a row's field. The order of values of one field is that of the variants' contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Value<'a> {
    Nothing,
    Id(u64),
    Number(i64),
    Flag(bool),
    Text(&'a str),
    Made(String),
}

impl<'a> Value<'a> {
    pub(in crate::cluster) fn id(id: Option<u64>) -> Self {
        id.map_or(Self::Nothing, Self::Id)
    }

    pub(in crate::cluster) fn number(number: impl TryInto<i64>) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }

    pub(in crate::cluster) fn numeric(number: Option<impl TryInto<i64>>) -> Self {
        number.map_or(Self::Nothing, Self::number)
    }

    pub(in crate::cluster) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }

    pub(in crate::cluster) fn made(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, Self::Made)
    }

    /// Compares two values of one field, for an order in which rows without a value come last.
    pub(in crate::cluster) fn order(&self, other: &Value<'_>, is_descending: bool) -> Ordering {
        let compared = match (self, other) {
            (Self::Nothing, Value::Nothing) => return Ordering::Equal,
            (Self::Nothing, _) => return Ordering::Greater,
            (_, Value::Nothing) => return Ordering::Less,
            (Self::Id(one), Value::Id(other)) => one.cmp(other),
            (Self::Number(one), Value::Number(other)) => one.cmp(other),
            (Self::Flag(one), Value::Flag(other)) => one.cmp(other),
            (one, other) => one.as_text().cmp(other.as_text()),
        };
        if is_descending { compared.reverse() } else { compared }
    }

    fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Made(text) => text,
            Self::Nothing | Self::Id(_) | Self::Number(_) | Self::Flag(_) => "",
        }
    }

    pub(in crate::cluster) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Nothing => Value::Nothing,
            Self::Id(id) => Value::Id(id),
            Self::Number(number) => Value::Number(number),
            Self::Flag(flag) => Value::Flag(flag),
            Self::Text(text) => Value::Made(text.to_owned()),
            Self::Made(text) => Value::Made(text),
        }
    }
}

impl Condition {
    pub(super) fn new(filter: &Filter, kind: Kind) -> Result<Self, QueryError> {
        let Filter { key, value, is_equal } = filter;
        let found = kind.forms().iter().find(|(name, _)| is_meant(name, key));
        let Some((key, form)) = found else {
            let keys = kind.keys().collect::<Vec<_>>().join(", ");
            return Err(QueryError::Key { key: key.clone(), keys });
        };
        // Parsed once: the condition may be checked against a million rows.
        let condition = Self {
            key,
            text: value.clone(),
            number: value.parse().ok(),
            id: hexadecimal(value),
            is_equal: *is_equal,
        };
        let form = match form {
            KeyKind::Id if condition.id.is_none() => "an id, in hexadecimal digits".to_owned(),
            KeyKind::Number if condition.number.is_none() => "a number".to_owned(),
            KeyKind::Flag if !["true", "false"].contains(&value.as_str()) => "true or false".to_owned(),
            KeyKind::Word(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
                format!("one of {}", words.join(", "))
            }
            _ => return Ok(condition),
        };
        // `none` is valid for every field: it selects the rows without a value.
        match condition.is_nothing() {
            true => Ok(condition),
            false => Err(QueryError::Value { key, value: value.clone(), form }),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self.text.as_str(), "" | "none" | "null")
    }

    /// Checks whether a row with this field passes.
    pub(in crate::cluster) fn holds(&self, field: &Value<'_>) -> bool {
        let is = match field {
            Value::Nothing => self.is_nothing(),
            Value::Id(id) => self.id == Some(*id),
            Value::Number(number) => self.number == Some(*number),
            Value::Flag(flag) => self.text == if *flag { "true" } else { "false" },
            Value::Text(text) => self.text.eq_ignore_ascii_case(text),
            Value::Made(text) => self.text.eq_ignore_ascii_case(text),
        };
        is == self.is_equal
    }
}

/// Parses hexadecimal digits.
pub(in crate::cluster) fn hexadecimal(text: &str) -> Option<u64> {
    // `from_str_radix` alone would accept a sign.
    let are_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}
