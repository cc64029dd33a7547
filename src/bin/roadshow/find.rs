//! From what somebody typed to what is meant: an id, its beginning, or a name.

use crate::failure::{Failure, Outcome};
use crate::rows::Row;
use crate::values::significant;

/// How much of an id must be given, unless it is all of it: less is rather a name, or a mistake.
const PREFIX_CHARS_MIN: usize = 4;

/// How many are named when several fit.
const NAMED_MAX: usize = 3;

/// The one that is meant.
pub(crate) fn find<'a, T: Row>(rows: &'a [T], text: &str) -> Outcome<&'a T> {
    let one = T::ONE;
    for fits in [is_id, is_name, begins_id] {
        let found: Vec<&T> = rows.iter().filter(|row| fits(*row, text)).collect();
        match found[..] {
            [] => {}
            [row] => return Ok(row),
            [..] => {
                let ids: Vec<String> = found.iter().take(NAMED_MAX).map(|row| row.id()).collect();
                let more = if found.len() > NAMED_MAX { ", ..." } else { "" };
                let text =
                    format!("{text:?} may be any of {} {one}s ({}{more})", found.len(), ids.join(", "));
                return Err(Failure::unknown(text, "give all of the id"));
            }
        }
    }
    if let Some(over) = rows.iter().rfind(|row| row.names().contains(&text)) {
        let text = format!("the {one} called {text:?} has ended: {}", over.id());
        return Err(Failure::unknown(text, "one that has ended is found by its id"));
    }
    let next = format!("`roadshow list {one}s` shows those that there are");
    Err(Failure::unknown(format!("there is no {one} {text:?}"), next))
}

/// All of an id; the zeros that fill it up may be missing.
fn is_id<T: Row>(row: &T, text: &str) -> bool {
    significant(&row.id()).eq_ignore_ascii_case(significant(text))
}

fn is_name<T: Row>(row: &T, text: &str) -> bool {
    !row.is_over() && row.names().contains(&text)
}

fn begins_id<T: Row>(row: &T, text: &str) -> bool {
    text.len() >= PREFIX_CHARS_MIN && row.id().starts_with(&text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exit, given};

    #[test]
    fn an_id_its_beginning_and_a_name_find_the_one() {
        let nodes = given::nodes();
        for text in ["a1b2000000000001", "A1B2000000000001", "a1b2", "head"] {
            assert_eq!(find(&nodes, text).unwrap().hostname, "head", "{text}");
        }
        let actors = given::actors();
        assert_eq!(find(&actors, "2").unwrap().id(), "0000000000000002");
        assert_eq!(find(&actors, "counter").unwrap().id(), "0000000000000001");
    }

    #[test]
    fn what_is_not_there_or_not_clear_is_no_find() {
        let actors = given::actors();
        for text in ["9", "0000", "", "old"] {
            assert_eq!(find(&actors, text).unwrap_err().code, exit::NO_SUCH_THING, "{text}");
        }
        let over = find(&actors, "old").unwrap_err().to_string();
        assert!(over.contains("has ended: 0000000000000002"), "{over}");
        let unclear = find(&actors, "00000000").unwrap_err().to_string();
        assert!(unclear.contains("0000000000000001, 0000000000000002"), "{unclear}");
        // Too short to be the beginning of an id.
        assert!(find(&given::nodes(), "a1b").is_err());
    }
}
