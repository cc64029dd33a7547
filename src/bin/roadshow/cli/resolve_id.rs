//! Resolves an id, a prefix of an id or a name to one row of a list.

use roadshow::admin::{Admin, AdminTransport};

use crate::cli::values::significant;
use crate::error::{CliError, CliResult};
use crate::output::rows::TableRow;

/// Minimum length of an id prefix, in characters. A shorter text is a name or a typing error.
const PREFIX_CHARS_MIN: usize = 4;

/// Maximum number of candidates in the error for an ambiguous text.
const CANDIDATES_SHOWN_MAX: usize = 3;

/// Resolves the text to one row: by its complete id, its name or an id prefix.
///
/// # Errors
///
/// [`CliError`] if no row matches, or several do. A text that is the name of one row and an id prefix of
/// another is ambiguous and refused: `kill` must not guess. The complete id is never ambiguous.
pub(crate) fn resolve<'a, T: TableRow>(rows: &'a [T], text: &str) -> CliResult<&'a T> {
    if let Some(row) = rows.iter().find(|row| row.id().eq_ignore_ascii_case(text)) {
        return Ok(row);
    }
    let of = |fits: fn(&T, &str) -> bool| -> Vec<&T> { rows.iter().filter(|row| fits(row, text)).collect() };
    let named = of(is_name);
    let shortened = Some(of(is_id)).filter(|found| !found.is_empty()).unwrap_or_else(|| of(begins_id));
    let found: Vec<&T> = match &named[..] {
        [] => shortened,
        // A name is free again when its owner has ended, so dead rows do not compete with a live one.
        _ => {
            let others = shortened.into_iter().filter(|row| !row.has_ended() && !is_name(*row, text));
            named.iter().copied().chain(others).collect()
        }
    };
    match found[..] {
        [] => Err(not_found(rows, text)),
        [row] => Ok(row),
        [..] => Err(ambiguous(&found, text)),
    }
}

/// Resolves the text, as [`resolve`] does, among the candidates that the head returns.
pub(crate) async fn resolve_at_head<T: TableRow, E: AdminTransport>(
    head: &mut Admin<E>,
    text: &str,
) -> CliResult<T> {
    // The head filters: a cluster may list millions of dead actors.
    let mut rows = head.meant::<T>(text).await?;
    let key = resolve(&rows, text)?.key();
    let at = rows.iter().position(|row| row.key() == key);
    Ok(rows.swap_remove(at.expect("the key is that of a row")))
}

fn not_found<T: TableRow>(rows: &[T], text: &str) -> CliError {
    let one = T::NOUN;
    if let Some(over) = rows.iter().rfind(|row| row.names().contains(&text)) {
        let text = format!("the {one} called {text:?} has ended: {}", over.id());
        return CliError::unknown(text, "give its id: a name finds only what has not ended");
    }
    let next = format!("`roadshow list {one}s` lists all");
    CliError::unknown(format!("there is no {one} {text:?}"), next)
}

fn ambiguous<T: TableRow>(found: &[&T], text: &str) -> CliError {
    let ids = found.iter().take(CANDIDATES_SHOWN_MAX).map(|row| match is_name(*row, text) {
        true => format!("{}, which has that name", row.id()),
        false => row.id(),
    });
    let ids: Vec<String> = ids.collect();
    // The head stops after a few candidates, so the number of all of them is unknown.
    let (how_many, more) = match found.len() {
        few @ ..=CANDIDATES_SHOWN_MAX => (few.to_string(), ""),
        _ => (format!("more than {CANDIDATES_SHOWN_MAX}"), "; ..."),
    };
    let text = format!("{text:?} matches {how_many} {}s ({}{more})", T::NOUN, ids.join("; "));
    CliError::unknown(text, "give the complete id, with its leading zeros")
}

/// Compares complete ids, without leading zeros.
fn is_id<T: TableRow>(row: &T, text: &str) -> bool {
    significant(&row.id()).eq_ignore_ascii_case(significant(text))
}

fn is_name<T: TableRow>(row: &T, text: &str) -> bool {
    !row.has_ended() && row.names().contains(&text)
}

fn begins_id<T: TableRow>(row: &T, text: &str) -> bool {
    text.len() >= PREFIX_CHARS_MIN && row.id().starts_with(&text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use roadshow::model::{ActorInfo, ActorKey};

    use super::*;
    use crate::{exit, test_cluster};

    #[test]
    fn id_id_prefix_and_name_resolve_to_a_row() {
        let nodes = test_cluster::nodes();
        for text in ["a1b2000000000001", "A1B2000000000001", "a1b2", "head"] {
            assert_eq!(resolve(&nodes, text).unwrap().hostname, "head", "{text}");
        }
        let actors = test_cluster::actors();
        assert_eq!(resolve(&actors, "2").unwrap().id(), "0000000000000002");
        assert_eq!(resolve(&actors, "counter").unwrap().id(), "0000000000000001");
    }

    /// Actors with these ids, names and states.
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
    fn name_that_is_also_an_id_of_another_is_refused_but_complete_id_resolves() {
        let both = actors(&[(1, "a", "ALIVE"), (0xa, "b", "ALIVE"), (0xb, "face", "ALIVE")]);
        for text in ["a", "b"] {
            let failure = resolve(&both, text).unwrap_err();
            assert_eq!(failure.code, exit::NO_SUCH_THING);
            let expected = "which has that name; 000000000000000";
            assert!(failure.to_string().contains(expected), "{failure}");
            assert!(
                failure.to_string().ends_with("give the complete id, with its leading zeros"),
                "{failure}"
            );
        }
        assert_eq!(resolve(&both, "000000000000000A").unwrap().id(), "000000000000000a");
        assert_eq!(resolve(&both, "0000000000000001").unwrap().id(), "0000000000000001");
        // Only one row matches each of these.
        assert_eq!(resolve(&both, "1").unwrap().id(), "0000000000000001");
        assert_eq!(resolve(&both, "face").unwrap().id(), "000000000000000b");
    }

    #[test]
    fn name_of_live_actor_wins_over_short_id_of_dead_one() {
        let ended = actors(&[(1, "a", "ALIVE"), (0xa, "b", "DEAD"), (0xb, "a", "DEAD")]);
        assert_eq!(resolve(&ended, "a").unwrap().id(), "0000000000000001");
        assert_eq!(resolve(&ended, "000000000000000a").unwrap().id(), "000000000000000a");
    }

    #[test]
    fn name_that_is_an_id_prefix_of_another_is_refused() {
        let both = actors(&[(1, "beef", "ALIVE"), (0xbeef_0000_0000_0000, "other", "ALIVE")]);
        assert_eq!(resolve(&both, "beef").unwrap_err().code, exit::NO_SUCH_THING);
        // The name is a prefix of the row's own id.
        let own = actors(&[(0xbeef_0000_0000_0000, "beef", "ALIVE"), (2, "other", "ALIVE")]);
        assert_eq!(resolve(&own, "beef").unwrap().id(), "beef000000000000");
    }

    #[test]
    fn unknown_and_ambiguous_texts_do_not_resolve() {
        let actors = test_cluster::actors();
        for text in ["9", "0000", "", "old"] {
            assert_eq!(resolve(&actors, text).unwrap_err().code, exit::NO_SUCH_THING, "{text}");
        }
        let over = resolve(&actors, "old").unwrap_err().to_string();
        assert!(over.contains("has ended: 0000000000000002"), "{over}");
        let ambiguous = resolve(&actors, "00000000").unwrap_err().to_string();
        assert!(ambiguous.contains("0000000000000001; 0000000000000002"), "{ambiguous}");
        // Shorter than the minimum prefix.
        assert!(resolve(&test_cluster::nodes(), "a1b").is_err());
    }
}
