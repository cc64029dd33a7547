//! Counts the words of one list.
//!
//! Words are slices of their list; only an answer copies a word.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    counter::Places,
    list::{TextTooLong, WordList},
};
use crate::RemoteData;

/// Algorithm that counts a list. Both algorithms give the same counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, RemoteData)]
pub enum Counting {
    /// The lecture's own: walks the whole list once for each of its words, O(n²).
    List,
    /// Walks the list once with a hash table, O(n).
    Hash,
}

impl Counting {
    /// Returns the word with the highest count; among equals, the one seen first. `None` without words.
    pub fn most_frequent(self, words: &WordList) -> Option<WordCount> {
        best(self.tallies(words).into_iter())
    }

    /// Tallies every distinct word of a list, in the order of first occurrence.
    pub fn count_all(self, words: &WordList) -> Counts {
        Counts::new(self.tallies(words))
    }

    /// Tallies the wanted words that the list contains, in the order wanted.
    pub fn count(self, words: &WordList, wanted: &WordList) -> Counts {
        let mut tallies = tallies_of_none(wanted);
        match self {
            Self::List => {
                for (wanted, tally) in &mut tallies {
                    for (position, _) in positions(words).filter(|(_, word)| word == wanted) {
                        tally.see(position);
                    }
                }
            }
            Self::Hash => {
                let places: HashMap<&str, usize> =
                    tallies.iter().enumerate().map(|(place, (word, _))| (*word, place)).collect();
                for (position, word) in positions(words) {
                    if let Some(&place) = places.get(word) {
                        tallies[place].1.see(position);
                    }
                }
            }
        }
        tallies.retain(|(_, tally)| tally.count > 0);
        Counts::new(tallies)
    }

    /// Tallies the distinct words in the order of first occurrence.
    pub(super) fn tallies(self, words: &WordList) -> Vec<(&str, Tally)> {
        match self {
            Self::List => tallies_by_walks(words),
            Self::Hash => tallies_by_table(words),
        }
    }
}

/// Walks the list once for each word, even one that was counted before.
///
/// The lecture's program calls `wordList.count(word)` each time. A shortcut would defeat the comparison of
/// O(n²) against O(n).
fn tallies_by_walks(words: &WordList) -> Vec<(&str, Tally)> {
    let all: Vec<&str> = words.iter().collect();
    let count = |words: &[&str], word| words.iter().filter(|&&other| other == word).count();
    let mut tallies = Vec::new();
    for (index, (first, word)) in positions(words).enumerate() {
        let before = count(&all[..index], word);
        let after = count(&all[index..], word);
        if before == 0 {
            tallies.push((word, Tally { count: after as u64, first }));
        }
    }
    tallies
}

fn tallies_by_table(words: &WordList) -> Vec<(&str, Tally)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut tallies: Vec<(&str, Tally)> = Vec::new();
    for (position, word) in positions(words) {
        let place = *places.entry(word).or_insert_with(|| {
            tallies.push((word, Tally::NONE));
            tallies.len() - 1
        });
        tallies[place].1.see(position);
    }
    tallies
}

/// Lists each distinct wanted word with an empty tally.
fn tallies_of_none(wanted: &WordList) -> Vec<(&str, Tally)> {
    let mut tallies = tallies_by_table(wanted);
    for (_, tally) in &mut tallies {
        *tally = Tally::NONE;
    }
    tallies
}

/// Pairs the words with their positions in the text.
fn positions(words: &WordList) -> impl Iterator<Item = (u64, &str)> {
    (words.position()..).zip(words)
}

/// Returns the word whose tally beats all others.
pub(super) fn best<'a>(tallies: impl Iterator<Item = (&'a str, Tally)>) -> Option<WordCount> {
    let best = tallies.reduce(|best, next| if next.1.beats(best.1) { next } else { best });
    best.map(|(word, Tally { count, first })| WordCount { word: word.to_owned(), count, first })
}

/// Number of occurrences of a word, and position of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, RemoteData)]
pub struct Tally {
    /// Number of occurrences.
    pub count: u64,
    /// Number of words before the first occurrence, in the whole text.
    pub first: u64,
}

impl Tally {
    /// Tally of a word that has not been seen.
    pub(super) const NONE: Self = Self { count: 0, first: u64::MAX };

    /// Tests whether this tally wins: by the higher count, or by the earlier first occurrence where counts
    /// are equal.
    #[must_use]
    pub fn beats(self, other: Self) -> bool {
        (self.count, other.first) > (other.count, self.first)
    }

    /// Adds the tallies of the same word over two parts of a text.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        // Saturates: a Node sent the numbers, and wrong ones must not panic here.
        let count = self.count.saturating_add(other.count);
        Self { count, first: self.first.min(other.first) }
    }

    fn see(&mut self, position: u64) {
        *self = self.join(Self { count: 1, first: position });
    }
}

/// A word with its tally: an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, RemoteData)]
pub struct WordCount {
    /// The word.
    pub word: String,
    /// Number of occurrences.
    pub count: u64,
    /// Number of words before the first occurrence, in the whole text.
    pub first: u64,
}

/// Distinct words, each with its tally.
///
/// The words lie in one buffer, so that the counts of a part are as cheap to send as the part itself.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, RemoteData)]
#[serde(try_from = "Columns", into = "Columns")]
pub struct Counts {
    words: WordList,
    tallies: Vec<Tally>,
}

impl Counts {
    pub(super) fn new(tallies: Vec<(&str, Tally)>) -> Self {
        Self::try_new(&tallies).expect("different words of a list fit where the list did")
    }

    pub(super) fn try_new<W: AsRef<str>>(tallies: &[(W, Tally)]) -> Result<Self, TextTooLong> {
        let words = WordList::from_words(tallies.iter().map(|(word, _)| word))?;
        Ok(Self { words, tallies: tallies.iter().map(|(_, tally)| *tally).collect() })
    }

    /// Replaces positions within the pieces of one Node by positions in the whole text.
    #[must_use]
    pub fn placed(mut self, places: &Places) -> Self {
        for tally in &mut self.tallies {
            tally.first = places.position(tally.first);
        }
        self
    }

    /// The word with the highest count; among equals, the one seen first. `None` without words.
    pub fn most_frequent(&self) -> Option<WordCount> {
        best(self.iter())
    }

    /// The number of different words.
    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Returns true if there are no words.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// The words with their tallies.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.words.iter().zip(self.tallies.iter().copied())
    }
}

/// Wire form of [`Counts`].
#[derive(Serialize, Deserialize)]
struct Columns {
    words: WordList,
    tallies: Vec<Tally>,
}

impl From<Counts> for Columns {
    fn from(Counts { words, tallies }: Counts) -> Self {
        Self { words, tallies }
    }
}

impl TryFrom<Columns> for Counts {
    type Error = MalformedCounts;

    fn try_from(Columns { words, tallies }: Columns) -> Result<Self, MalformedCounts> {
        if words.len() == tallies.len() {
            Ok(Self { words, tallies })
        } else {
            Err(MalformedCounts { words: words.len(), tallies: tallies.len() })
        }
    }
}

/// Error of decoding counts whose numbers of words and tallies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{words} words came with {tallies} tallies")]
pub struct MalformedCounts {
    words: usize,
    tallies: usize,
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Counting; 2] = [Counting::List, Counting::Hash];

    fn list(text: &str) -> WordList {
        WordList::from_words(text.split(' ').filter(|word| !word.is_empty())).unwrap()
    }

    /// Returns the result of the lecture's `mostFrequentWordv1`.
    fn lecture(words: &[&str]) -> Option<(String, u64)> {
        let mut best: Option<(String, u64)> = None;
        for word in words {
            let count = words.iter().filter(|other| *other == word).count() as u64;
            if count > best.as_ref().map_or(0, |best| best.1) {
                best = Some(((*word).to_owned(), count));
            }
        }
        best
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn every_counting_gives_the_lectures_answer(words in prop::collection::vec("[a-e]", 0..40)) {
            let list = WordList::from_words(&words).unwrap();
            let expect = lecture(&list.iter().collect::<Vec<_>>());
            for counting in BOTH {
                let best = counting.most_frequent(&list).map(|best| (best.word, best.count));
                prop_assert_eq!(best, expect.clone());
            }
        }

        #[test]
        fn countings_agree_on_every_word(words in prop::collection::vec("[a-e]", 0..40)) {
            let list = WordList::from_words(words).unwrap();
            prop_assert_eq!(Counting::List.count_all(&list), Counting::Hash.count_all(&list));
        }

        #[test]
        fn wanted_words_have_the_tallies_of_all_words(
            words in prop::collection::vec("[a-e]", 5..40),
            wanted in prop::collection::vec("[c-h]", 0..6),
        ) {
            let list = WordList::from_words(words).unwrap();
            let list = list.slice(3..list.len());
            let wanted = WordList::from_words(wanted).unwrap();
            let all = Counting::Hash.count_all(&list);
            for counting in BOTH {
                let counts = counting.count(&list, &wanted);
                for (word, tally) in counts.iter() {
                    prop_assert!(all.iter().any(|known| known == (word, tally)));
                }
                let found = all.iter().filter(|(word, _)| wanted.iter().any(|other| other == *word));
                prop_assert_eq!(found.count(), counts.len());
            }
        }
    }

    #[test]
    fn tie_goes_to_the_word_seen_first() {
        for counting in BOTH {
            let best = counting.most_frequent(&list("c b a b a c"));
            assert_eq!(best, Some(WordCount { word: "c".into(), count: 2, first: 0 }));
        }
    }

    #[test]
    fn first_occurrence_counts_the_words_of_the_whole_text() {
        let part = list("a a a b c b").slice(3..6);
        for counting in BOTH {
            let best = counting.most_frequent(&part);
            assert_eq!(best, Some(WordCount { word: "b".into(), count: 2, first: 3 }));
            let counts = counting.count(&part, &list("c x c"));
            assert_eq!(counts.iter().collect::<Vec<_>>(), [("c", Tally { count: 1, first: 4 })]);
        }
    }

    #[test]
    fn empty_list_has_no_answer() {
        for counting in BOTH {
            assert_eq!(counting.most_frequent(&WordList::default()), None);
            assert!(counting.count_all(&WordList::default()).is_empty());
        }
    }

    #[test]
    fn counts_without_a_tally_for_each_word_are_rejected() {
        let columns = Columns { words: list("a b"), tallies: vec![Tally { count: 1, first: 0 }] };
        let refused = MalformedCounts { words: 2, tallies: 1 };
        assert_eq!(Counts::try_from(columns), Err(refused));
    }
}
