//! Most frequent words of a text, exact and with little traffic.

use std::num::NonZeroUsize;

use super::{
    count::{Counting, Counts, Tally, WordCount},
    list::{TextTooLong, WordList},
    tput::{Ranking, Survivors, Threshold},
};
use crate::wire;

/// Counts parts one after another in this process and returns the k most frequent words, best first.
///
/// The rounds are those of [`tput`](super::tput). The words are ranked by count and, among equals, by first
/// occurrence.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use roadshow::words::{Counting, tokenize, top_words};
///
/// let words = tokenize("a a a x x b b b x x c c c x x d d d x x")?;
/// let (two, four) = (NonZeroUsize::new(2).ok_or("two")?, NonZeroUsize::new(4).ok_or("four")?);
/// let top = top_words(&words, four, two, Counting::Hash);
/// let top: Vec<_> = top.iter().map(|best| (best.word.as_str(), best.count)).collect();
/// assert_eq!(top, [("x", 8), ("a", 3)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn top_words(
    words: &WordList,
    parts: NonZeroUsize,
    k: NonZeroUsize,
    counting: Counting,
) -> Vec<WordCount> {
    by_slices(words, parts, k, counting, |_| ())
}

/// Runs the three rounds in this process and passes each answer to `sent`.
fn by_slices(
    words: &WordList,
    parts: NonZeroUsize,
    k: NonZeroUsize,
    counting: Counting,
    mut sent: impl FnMut(&Counts),
) -> Vec<WordCount> {
    let mut send = |counts: Counts| {
        sent(&counts);
        counts
    };
    let parts = words.partition(parts);
    let rankings: Vec<_> = parts.iter().map(|part| counting.rank(part)).collect();
    let best: Vec<_> = rankings.iter().map(|part| send(counts(part.best(k)))).collect();
    let threshold = Threshold::new(k, best.iter().map(Counts::iter));
    let at_least = threshold.at_least();
    let rest: Vec<_> = rankings.iter().map(|part| send(counts(part.rest(k, at_least)))).collect();
    let survivors = threshold.prune(rest.iter().map(Counts::iter));
    let questions = questions(&survivors).expect("words of a text fit where the text did");
    let missing: Vec<_> =
        questions.iter().map(|(part, wanted)| send(counting.count(&parts[*part], wanted))).collect();
    settle(survivors, &missing)
}

impl Counting {
    /// Ranks the words of a part.
    pub(super) fn rank(self, words: &WordList) -> Ranking<&str> {
        Ranking::new(self.tallies(words))
    }
}

/// Converts an answer of the first or second round to its wire form.
pub(super) fn counts<'a, W: AsRef<str> + 'a>(ranked: impl Iterator<Item = (&'a W, Tally)>) -> Counts {
    Counts::new(ranked.map(|(word, tally)| (word.as_ref(), tally)).collect())
}

/// Converts the questions of the third round to their wire form, each with the index of its part.
pub(super) fn questions(survivors: &Survivors<&str>) -> Result<Vec<(usize, WordList)>, TextTooLong> {
    survivors.questions().map(|(part, words)| Ok((part, WordList::from_words(words)?))).collect()
}

/// Computes the result from the answers of the third round.
pub(super) fn settle<'a>(survivors: Survivors<&'a str>, missing: &'a [Counts]) -> Vec<WordCount> {
    let top = survivors.settle(missing.iter().map(Counts::iter)).into_iter();
    top.map(|(word, Tally { count, first })| WordCount { word: word.to_owned(), count, first }).collect()
}

/// Volume of the answers that the parts of a text send. The questions are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Number of tallies.
    pub tallies: u64,
    /// Total size of the answers' bodies, in bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Measures [`Method::Tput`](super::Method::Tput) for the k most frequent words.
    pub fn of_tput(words: &WordList, parts: NonZeroUsize, k: NonZeroUsize) -> Self {
        let mut traffic = Self::default();
        by_slices(words, parts, k, Counting::Hash, |counts| traffic.add(counts));
        traffic
    }

    /// Measures [`Method::Exact`](super::Method::Exact), which does not depend on k.
    pub fn of_exact(words: &WordList, parts: NonZeroUsize) -> Self {
        let mut traffic = Self::default();
        for part in words.partition(parts) {
            // The size of an answer does not depend on the algorithm, so the fast one is used.
            traffic.add(&Counting::Hash.count_all(&part));
        }
        traffic
    }

    fn add(&mut self, counts: &Counts) {
        let bytes = wire::encode(counts, usize::MAX, |body| body.len());
        self.bytes += bytes.expect("columns of words and numbers can always be encoded") as u64;
        self.tallies += counts.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn some(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    /// Returns the first k of all words, counted in one piece, as the reference.
    fn expected(words: &WordList, k: usize) -> Vec<WordCount> {
        let mut all = Counting::Hash.tallies(words);
        all.sort_by_key(|(_, tally)| (u64::MAX - tally.count, tally.first));
        let top = all.into_iter().take(k);
        top.map(|(word, Tally { count, first })| WordCount { word: word.into(), count, first }).collect()
    }

    /// Generates words of Zipf's distribution: the word of rank r is about 1/r times as frequent as the
    /// first. The names are unrelated to the ranks, so that alphabetic order cannot decide a tie correctly
    /// by chance.
    fn zipf(len: usize, vocabulary: u32) -> WordList {
        let mut state = 1_u64;
        let words = (0..len).map(|_| {
            // Knuth's generator for MMIX; only its high bits are random enough.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
            let rank = (unit * f64::from(vocabulary).ln()).exp() as u32;
            format!("w{:x}", rank.wrapping_mul(0x9e37_79b1))
        });
        WordList::from_words(words).unwrap()
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn top_words_are_those_of_the_whole_text(
            words in prop::collection::vec("[a-d]{1,2}", 0..80),
            parts in 1_usize..=9,
            k in 1_usize..25,
        ) {
            let words = WordList::from_words(words).unwrap();
            for counting in [Counting::List, Counting::Hash] {
                prop_assert_eq!(top_words(&words, some(parts), some(k), counting), expected(&words, k));
            }
        }

        #[test]
        fn tput_never_sends_more_tallies_than_exact(
            words in prop::collection::vec("[a-d]{1,2}", 0..80),
            parts in 1_usize..=9,
            k in 1_usize..25,
        ) {
            let words = WordList::from_words(words).unwrap();
            let tput = Traffic::of_tput(&words, some(parts), some(k));
            prop_assert!(tput.tallies <= Traffic::of_exact(&words, some(parts)).tallies);
        }
    }

    #[test]
    fn tput_sends_a_small_share_of_a_text_with_many_words() {
        let words = zipf(200_000, 50_000);
        for (parts, k, share) in [(4, 1, 1_000), (4, 10, 200), (9, 10, 100), (9, 100, 10)] {
            assert_eq!(top_words(&words, some(parts), some(k), Counting::Hash), expected(&words, k));
            let exact = Traffic::of_exact(&words, some(parts));
            let tput = Traffic::of_tput(&words, some(parts), some(k));
            println!("{parts} parts, k {k}: tput {tput:?}, exact {exact:?}");
            assert!(tput.tallies * share < exact.tallies, "{parts} parts, k {k}: {tput:?} of {exact:?}");
            assert!(tput.bytes * share < exact.bytes, "{parts} parts, k {k}: {tput:?} of {exact:?}");
        }
    }
}
