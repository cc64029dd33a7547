//! From what somebody typed to what is meant: an id, its beginning, or a name.

use roadshow::admin::{Admin, AdminTransport};

use crate::cli::values::significant;
use crate::error::{CliError, CliResult};
use crate::output::rows::Row;

/// How much of an id must be given, unless it is all of it: less is rather a name, or a mistake.
const PREFIX_CHARS_MIN: usize = 4;

/// How many are named when several fit.
const CANDIDATES_SHOWN_MAX: usize = 3;

/// The one that is meant: by its complete id, by its name, or by a shortened id.
///
/// # Errors
///
/// [`CliError`] if none fits, or several do. The name of one that goes on and the shortened id of another are
/// both meant as often, so neither is guessed; the complete id is always clear.
pub(crate) fn resolve<'a, T: Row>(rows: &'a [T], text: &str) -> CliResult<&'a T> {
    if let Some(row) = rows.iter().find(|row| row.id().eq_ignore_ascii_case(text)) {
        return Ok(row);
    }
    let of = |fits: fn(&T, &str) -> bool| -> Vec<&T> { rows.iter().filter(|row| fits(row, text)).collect() };
    let named = of(is_name);
    let shortened = Some(of(is_id)).filter(|found| !found.is_empty()).unwrap_or_else(|| of(begins_id));
    let found: Vec<&T> = match &named[..] {
        [] => shortened,
        // One that has ended leaves the name to the one that goes on.
        _ => {
            let others = shortened.into_iter().filter(|row| !row.has_ended() && !is_name(*row, text));
            named.iter().copied().chain(others).collect()
        }
    };
    match found[..] {
        [] => Err(not_found(rows, text)),
        [row] => Ok(row),
        [..] => Err(unclear(&found, text)),
    }
}

/// The one that is meant, as [`find`] has it, of those that the head says may be.
pub(crate) async fn find_at<T: Row, E: AdminTransport>(head: &mut Admin<E>, text: &str) -> CliResult<T> {
    let mut rows = head.meant::<T>(text).await?;
    let key = resolve(&rows, text)?.key();
    let at = rows.iter().position(|row| row.key() == key);
    Ok(rows.swap_remove(at.expect("it was found among them")))
}

fn not_found<T: Row>(rows: &[T], text: &str) -> CliError {
    let one = T::NOUN;
    if let Some(over) = rows.iter().rfind(|row| row.names().contains(&text)) {
        let text = format!("the {one} called {text:?} has ended: {}", over.id());
        return CliError::unknown(text, "one that has ended is found by its id");
    }
    let next = format!("`roadshow list {one}s` shows those that there are");
    CliError::unknown(format!("there is no {one} {text:?}"), next)
}

fn unclear<T: Row>(found: &[&T], text: &str) -> CliError {
    let ids = found.iter().take(CANDIDATES_SHOWN_MAX).map(|row| match is_name(*row, text) {
        true => format!("{}, which is called so", row.id()),
        false => row.id(),
    });
    let ids: Vec<String> = ids.collect();
    // The head tells of some of those whose ids begin so.
    let (how_many, more) = match found.len() {
        few @ ..=CANDIDATES_SHOWN_MAX => (few.to_string(), ""),
        _ => (format!("more than {CANDIDATES_SHOWN_MAX}"), "; ..."),
    };
    let text = format!("{text:?} may be any of {how_many} {}s ({}{more})", T::NOUN, ids.join("; "));
    CliError::unknown(text, "give all of the id, with the zeros before it")
}

/// All of an id but the zeros that fill it up.
fn is_id<T: Row>(row: &T, text: &str) -> bool {
    significant(&row.id()).eq_ignore_ascii_case(significant(text))
}

fn is_name<T: Row>(row: &T, text: &str) -> bool {
    !row.has_ended() && row.names().contains(&text)
}

fn begins_id<T: Row>(row: &T, text: &str) -> bool {
    text.len() >= PREFIX_CHARS_MIN && row.id().starts_with(&text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use roadshow::model::{ActorInfo, ActorKey};

    use super::*;
    use crate::{exit, test_cluster};

    #[test]
    fn an_id_its_beginning_and_a_name_find_the_one() {
        let nodes = test_cluster::nodes();
        for text in ["a1b2000000000001", "A1B2000000000001", "a1b2", "head"] {
            assert_eq!(resolve(&nodes, text).unwrap().hostname, "head", "{text}");
        }
        let actors = test_cluster::actors();
        assert_eq!(resolve(&actors, "2").unwrap().id(), "0000000000000002");
        assert_eq!(resolve(&actors, "counter").unwrap().id(), "0000000000000001");
    }

    /// Actors of these numbers, called so, each alive or dead.
    fn actors(described: &[(u64, &str, &str)]) -> Vec<ActorInfo> {
        let one = test_cluster::actors().remove(0);
        let described = described.iter().map(|(id, name, state)| {
            let mut json = serde_json::to_value(&one).unwrap();
            json["actor_id"] = serde_json::to_value(ActorKey(*id)).unwrap();
            (json["name"], json["state"]) = ((*name).into(), (*state).into());
            serde_json::from_value(json).unwrap()
        });
        described.collect()
    }

    #[test]
    fn a_name_that_reads_as_the_id_of_another_is_refused_and_the_complete_id_is_clear() {
        let both = actors(&[(1, "a", "ALIVE"), (0xa, "b", "ALIVE"), (0xb, "face", "ALIVE")]);
        for text in ["a", "b"] {
            let failure = resolve(&both, text).unwrap_err();
            assert_eq!(failure.code, exit::NO_SUCH_THING);
            let expected = "which is called so; 000000000000000";
            assert!(failure.to_string().contains(expected), "{failure}");
            assert!(
                failure.to_string().ends_with("give all of the id, with the zeros before it"),
                "{failure}"
            );
        }
        assert_eq!(resolve(&both, "000000000000000A").unwrap().id(), "000000000000000a");
        assert_eq!(resolve(&both, "0000000000000001").unwrap().id(), "0000000000000001");
        // Nothing else is meant by these.
        assert_eq!(resolve(&both, "1").unwrap().id(), "0000000000000001");
        assert_eq!(resolve(&both, "face").unwrap().id(), "000000000000000b");
    }

    #[test]
    fn a_living_actor_is_found_by_its_name_before_an_ended_one_by_its_short_id() {
        let ended = actors(&[(1, "a", "ALIVE"), (0xa, "b", "DEAD"), (0xb, "a", "DEAD")]);
        assert_eq!(resolve(&ended, "a").unwrap().id(), "0000000000000001");
        assert_eq!(resolve(&ended, "000000000000000a").unwrap().id(), "000000000000000a");
    }

    #[test]
    fn a_name_that_begins_the_id_of_another_is_refused() {
        let both = actors(&[(1, "beef", "ALIVE"), (0xbeef_0000_0000_0000, "other", "ALIVE")]);
        assert_eq!(resolve(&both, "beef").unwrap_err().code, exit::NO_SUCH_THING);
        // Its name is the beginning of its own id.
        let own = actors(&[(0xbeef_0000_0000_0000, "beef", "ALIVE"), (2, "other", "ALIVE")]);
        assert_eq!(resolve(&own, "beef").unwrap().id(), "beef000000000000");
    }

    #[test]
    fn what_is_not_there_or_not_clear_is_no_find() {
        let actors = test_cluster::actors();
        for text in ["9", "0000", "", "old"] {
            assert_eq!(resolve(&actors, text).unwrap_err().code, exit::NO_SUCH_THING, "{text}");
        }
        let over = resolve(&actors, "old").unwrap_err().to_string();
        assert!(over.contains("has ended: 0000000000000002"), "{over}");
        let unclear = resolve(&actors, "00000000").unwrap_err().to_string();
        assert!(unclear.contains("0000000000000001; 0000000000000002"), "{unclear}");
        // Too short to be the beginning of an id.
        assert!(resolve(&test_cluster::nodes(), "a1b").is_err());
    }
}
