//! The same by stateless tasks.

use std::num::NonZeroUsize;

use super::{
    count::{Counting, Counts, WordCount},
    error::SolveError,
    list::WordList,
    method::{Method, candidates, merge},
};
use crate::prelude::*;

/// The winner of a part: the first of the two rounds.
#[crate::task]
pub fn most_frequent(words: WordList, counting: Counting) -> Option<WordCount> {
    counting.most_frequent(&words)
}

/// The tallies of the wanted words in a part: the second of the two rounds.
#[crate::task]
pub fn count_words(words: WordList, wanted: WordList, counting: Counting) -> Counts {
    counting.count(&words, &wanted)
}

/// The tallies of all words of a part: the exact method.
#[crate::task]
pub fn count_all(words: WordList, counting: Counting) -> Counts {
    counting.count_all(&words)
}

/// The answer by one task for each part and round.
///
/// A task keeps nothing, so two rounds send every part twice.
///
/// # Errors
///
/// [`SolveError`] if a task fails.
///
/// # Cancel safety
///
/// Nothing is left behind but tasks that were started, whose results are dropped.
pub async fn tasks(
    cluster: &ClusterRef,
    words: &WordList,
    parts: NonZeroUsize,
    counting: Counting,
    method: Method,
) -> Result<Option<WordCount>, SolveError> {
    let parts = words.partition(parts).into_iter();
    let counts = match method {
        Method::TwoRound => {
            let first = parts.clone().map(|part| most_frequent::task(part, counting));
            let winners = cluster.run_all(first).await?;
            let wanted = candidates(winners.iter().flatten())?;
            let second = parts.map(|part| count_words::task(part, wanted.clone(), counting));
            cluster.run_all(second).await?
        }
        Method::Exact => cluster.run_all(parts.map(|part| count_all::task(part, counting))).await?,
    };
    Ok(merge(&counts))
}
