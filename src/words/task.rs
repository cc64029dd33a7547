//! Counting by stateless tasks.

use std::num::NonZeroUsize;

use super::{
    count::{Counting, Counts, WordCount},
    error::SolveError,
    list::WordList,
    method::{Method, candidates, merge},
    top::{counts, questions, settle},
    tput::Threshold,
};
use crate::prelude::*;

/// Number of times that a task runs again if its worker ends.
///
/// A task here has no effects, so it may run as often as workers are lost while it counts a large part.
const RETRIES: u32 = 30;

/// Returns the winner of a part: the first of the two rounds.
#[crate::task]
pub fn most_frequent(words: WordList, counting: Counting) -> Option<WordCount> {
    counting.most_frequent(&words)
}

/// Tallies the wanted words of a part: the last of two or three rounds.
#[crate::task]
pub fn count_words(words: WordList, wanted: WordList, counting: Counting) -> Counts {
    counting.count(&words, &wanted)
}

/// Tallies all words of a part: the exact method.
#[crate::task]
pub fn count_all(words: WordList, counting: Counting) -> Counts {
    counting.count_all(&words)
}

/// Tallies the k most frequent words of a part: the first of the three rounds.
#[crate::task]
pub fn best_words(words: WordList, k: NonZeroUsize, counting: Counting) -> Counts {
    counts(counting.rank(&words).best(k))
}

/// Tallies the words after the k best that have the minimum count: the second of the three rounds.
#[crate::task]
pub fn other_words(words: WordList, k: NonZeroUsize, at_least: u64, counting: Counting) -> Counts {
    counts(counting.rank(&words).rest(k, at_least))
}

/// Counts by one task for each part and round.
///
/// A task keeps no state, so every round sends and counts the parts again.
///
/// # Errors
///
/// [`SolveError`] if a task fails.
///
/// # Cancel safety
///
/// Dropping the future leaves only tasks that have started; their results are dropped.
pub async fn tasks(
    cluster: &ClusterRef,
    words: &WordList,
    parts: NonZeroUsize,
    counting: Counting,
    method: Method,
) -> Result<Option<WordCount>, SolveError> {
    let parts = words.partition(parts);
    let counts = match method {
        Method::TwoRound => two_rounds(cluster, parts, counting).await?,
        Method::Exact => {
            let all = parts.into_iter().map(|part| count_all::task(part, counting));
            cluster.run_all(all).retries(RETRIES).await?
        }
        Method::Tput => return Ok(three_rounds(cluster, parts, NonZeroUsize::MIN, counting).await?.pop()),
    };
    Ok(merge(&counts))
}

async fn two_rounds(
    cluster: &ClusterRef,
    parts: Vec<WordList>,
    counting: Counting,
) -> Result<Vec<Counts>, SolveError> {
    // A clone shares the buffers of the text; each round only serializes its part again.
    let first = parts.iter().cloned().map(|part| most_frequent::task(part, counting));
    let winners = cluster.run_all(first).retries(RETRIES).await?;
    let wanted = candidates(winners.iter().flatten())?;
    let second = parts.into_iter().map(|part| count_words::task(part, wanted.clone(), counting));
    Ok(cluster.run_all(second).retries(RETRIES).await?)
}

async fn three_rounds(
    cluster: &ClusterRef,
    parts: Vec<WordList>,
    k: NonZeroUsize,
    counting: Counting,
) -> Result<Vec<WordCount>, SolveError> {
    let first = parts.iter().cloned().map(|part| best_words::task(part, k, counting));
    let best = cluster.run_all(first).retries(RETRIES).await?;
    let threshold = Threshold::new(k, best.iter().map(Counts::iter));
    let at_least = threshold.at_least();
    let second = parts.iter().cloned().map(|part| other_words::task(part, k, at_least, counting));
    let others = cluster.run_all(second).retries(RETRIES).await?;
    let survivors = threshold.prune(others.iter().map(Counts::iter));
    let questions = questions(&survivors)?.into_iter();
    let third = questions.map(|(part, wanted)| count_words::task(parts[part].clone(), wanted, counting));
    let missing = cluster.run_all(third).retries(RETRIES).await?;
    Ok(settle(survivors, &missing))
}
