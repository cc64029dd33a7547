//! Combines the counts of the parts into the answer for the text.

use std::num::NonZeroUsize;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{
    count::{Counting, Counts, Tally, WordCount, best},
    list::{TextTooLong, WordList},
    top::top_words,
};

/// Method that combines the parts of a text into one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// The lecture's: each part names its winner, then every part counts all the winners.
    ///
    /// It misses a word that wins over the whole text and in no part. The count of its answer is right for
    /// the word, but the word may be the wrong one.
    TwoRound,
    /// Every part sends the tallies of all its words, and their sums decide.
    Exact,
    /// As exact, in three rounds in which a part sends only the tallies that can matter; see
    /// [`tput`](super::tput).
    Tput,
}

/// Counts a text in one piece in this process.
pub fn sequential(words: &WordList, counting: Counting) -> Option<WordCount> {
    counting.most_frequent(words)
}

/// Counts parts one after another in this process.
///
/// The baseline of a comparison: it does the work of the tasks and the actors without a cluster. With
/// [`Counting::List`], n parts are n times quicker than one piece even without parallelism.
pub fn slices(
    words: &WordList,
    parts: NonZeroUsize,
    counting: Counting,
    method: Method,
) -> Option<WordCount> {
    match method {
        Method::TwoRound => merge(&two_rounds(&words.partition(parts), counting)),
        Method::Exact => {
            let parts = words.partition(parts);
            merge(&parts.iter().map(|part| counting.count_all(part)).collect::<Vec<_>>())
        }
        Method::Tput => top_words(words, parts, NonZeroUsize::MIN, counting).pop(),
    }
}

fn two_rounds(parts: &[WordList], counting: Counting) -> Vec<Counts> {
    let winners: Vec<_> = parts.iter().map(|part| counting.most_frequent(part)).collect();
    let candidates = candidates(winners.iter().flatten());
    let candidates = candidates.expect("words of a text fit where the text did");
    parts.iter().map(|part| counting.count(part, &candidates)).collect()
}

/// Returns the distinct words among the winners of the parts: the question of the second round.
///
/// # Errors
///
/// [`TextTooLong`] if the words take more than 4 GiB, which winners of one text never do.
pub fn candidates<'a>(winners: impl IntoIterator<Item = &'a WordCount>) -> Result<WordList, TextTooLong> {
    let mut words: Vec<&str> = winners.into_iter().map(|winner| winner.word.as_str()).collect();
    // Parts may have the same winner, and `dedup` removes only neighbours.
    words.sort_unstable();
    words.dedup();
    WordList::from_words(words)
}

/// Merges the counts of all parts into the answer.
///
/// The order of the parts makes no difference.
pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> Option<WordCount> {
    best(sums(parts).into_iter())
}

/// Merges the counts of all parts into those of the whole text, in the order of first occurrence.
///
/// # Errors
///
/// [`TextTooLong`] if the distinct words take more than 4 GiB together.
pub fn total<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> Result<Counts, TextTooLong> {
    let mut tallies: Vec<_> = sums(parts).into_iter().collect();
    // The sums come from a hash table, which iterates in a random order.
    tallies.sort_unstable_by_key(|(_, tally)| tally.first);
    Counts::try_new(&tallies)
}

fn sums<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> HashMap<&'a str, Tally> {
    let mut sums: HashMap<&str, Tally> = HashMap::new();
    for (word, tally) in parts.into_iter().flat_map(Counts::iter) {
        sums.entry(word).and_modify(|known| *known = known.join(tally)).or_insert(tally);
    }
    sums
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    const COUNTINGS: [Counting; 2] = [Counting::List, Counting::Hash];
    const METHODS: [Method; 3] = [Method::TwoRound, Method::Exact, Method::Tput];

    fn list(text: &str) -> WordList {
        WordList::from_words(text.split(' ')).unwrap()
    }

    fn parts(parts: usize) -> NonZeroUsize {
        NonZeroUsize::new(parts).unwrap()
    }

    fn answer(word: &str, count: u64, first: u64) -> Option<WordCount> {
        Some(WordCount { word: word.into(), count, first })
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn exact_methods_give_the_sequential_answer(
            words in prop::collection::vec("[a-f]{1,2}", 0..80),
            n in 1_usize..12,
        ) {
            let words = WordList::from_words(words).unwrap();
            for counting in COUNTINGS {
                for method in [Method::Exact, Method::Tput] {
                    let exact = slices(&words, parts(n), counting, method);
                    prop_assert_eq!(exact, sequential(&words, counting));
                }
            }
        }

        #[test]
        fn two_rounds_never_claim_more_than_the_text_has(
            words in prop::collection::vec("[a-f]", 1..80),
            n in 1_usize..12,
        ) {
            let words = WordList::from_words(words).unwrap();
            let all = Counting::Hash.count_all(&words);
            for counting in COUNTINGS {
                let answer = slices(&words, parts(n), counting, Method::TwoRound).unwrap();
                let tally = Tally { count: answer.count, first: answer.first };
                prop_assert!(all.iter().any(|known| known == (answer.word.as_str(), tally)));
            }
        }

        #[test]
        fn order_of_the_parts_makes_no_difference(
            words in prop::collection::vec("[a-f]", 0..40),
            n in 1_usize..6,
        ) {
            let words = WordList::from_words(words).unwrap();
            let mut counts: Vec<_> =
                words.partition(parts(n)).iter().map(|part| Counting::Hash.count_all(part)).collect();
            let forwards = merge(&counts);
            counts.reverse();
            prop_assert_eq!(merge(&counts), forwards);
        }
    }

    #[test]
    fn two_rounds_miss_a_word_that_wins_in_no_part_and_exact_finds_it() {
        let words = list("a a a x x b b b x x c c c x x d d d x x");
        for counting in COUNTINGS {
            assert_eq!(slices(&words, parts(4), counting, Method::TwoRound), answer("a", 3, 0));
            assert_eq!(slices(&words, parts(4), counting, Method::Exact), answer("x", 8, 3));
            assert_eq!(slices(&words, parts(4), counting, Method::Tput), answer("x", 8, 3));
        }
    }

    #[test]
    fn tail_that_four_does_not_divide_is_counted() {
        let words = list("a b c d a b c d z z z");
        for counting in COUNTINGS {
            for method in METHODS {
                assert_eq!(slices(&words, parts(4), counting, method), answer("z", 3, 8));
            }
        }
    }

    #[test]
    fn no_word_is_lost_for_any_length_and_number_of_parts() {
        for len in 1..=40 {
            let words = WordList::from_words((0..len).map(|word: u64| word.to_string())).unwrap();
            for n in 1..=9 {
                let parts = words.partition(parts(n));
                assert_eq!(parts.len(), n);
                let mut counted: Vec<String> = Vec::new();
                for part in &parts {
                    let counts = Counting::List.count_all(part);
                    counted.extend(counts.iter().map(|(word, _)| word.to_owned()));
                }
                assert_eq!(counted, words.iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn tie_goes_to_the_word_seen_first_across_parts() {
        // By parts: a twice, then b twice, then one more of each.
        let words = list("a a b b b a");
        for counting in COUNTINGS {
            for method in METHODS {
                for n in 1..=7 {
                    assert_eq!(slices(&words, parts(n), counting, method), answer("a", 3, 0));
                }
            }
        }
    }

    #[test]
    fn fewer_words_than_parts_have_an_answer_and_no_words_have_none() {
        for counting in COUNTINGS {
            for method in METHODS {
                assert_eq!(slices(&list("a b b"), parts(8), counting, method), answer("b", 2, 1));
                assert_eq!(slices(&WordList::default(), parts(3), counting, method), None);
            }
        }
    }
}
