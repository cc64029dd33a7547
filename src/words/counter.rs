//! Counting straight from text, without a copy of any word but its first.

use std::fmt;

use hashbrown::HashMap;

use super::{
    count::{Counts, Tally},
    list::TextTooLong,
    scan::{Key, Scanner, ShortWord, Word},
};

/// Counts the words of pieces of text, one piece after another.
///
/// The words are those of [`tokenize`](super::tokenize). Pieces have to end at white space, or a word
/// is cut in two. What it takes in memory is a table of the different words.
///
/// The tables are hashbrown's with its own hasher, seeded anew for each process: no text can be
/// written so that its words collide.
///
/// # Examples
///
/// ```
/// use roadshow::words::{Tally, TextCounter};
///
/// let mut counter = TextCounter::default();
/// assert_eq!(counter.add("To be, or "), 3);
/// assert_eq!(counter.add("not to be."), 3);
/// let counts = counter.counts()?;
/// assert_eq!(counts.iter().nth(1), Some(("be", Tally { count: 2, first: 1 })));
/// # Ok::<(), roadshow::words::TextTooLong>(())
/// ```
#[derive(Default)]
pub struct TextCounter {
    scanner: Scanner,
    table: Table,
    words: u64,
}

/// The words that were seen.
#[derive(Default)]
struct Table {
    /// Nearly all words of most languages: compared and hashed as one number.
    short: HashMap<Key, Tally>,
    long: HashMap<String, Tally>,
}

impl Table {
    /// A word that is long, or is seen for the first time.
    #[cold]
    #[inline(never)]
    fn see_rare(&mut self, word: Word<'_>, position: u64) {
        let unseen = Tally { count: 0, first: position };
        let tally = match word.key() {
            Some(key) => self.short.entry(key).or_insert(unseen),
            None => self.long.entry_ref(word.as_str()).or_insert(unseen),
        };
        tally.count += 1;
    }
}

impl TextCounter {
    /// Counts a piece of text, and returns how many words it has.
    pub fn add(&mut self, piece: &str) -> u64 {
        let Self { scanner, table, words } = self;
        let before = *words;
        scanner.each_word(piece, |word| {
            // What is seen again and again is done here; the rest is kept out of the loop.
            match word.key().and_then(|key| table.short.get_mut(&key)) {
                Some(tally) => tally.count += 1,
                None => table.see_rare(word, *words),
            }
            *words += 1;
        });
        *words - before
    }

    /// How many words all pieces have.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// The different words in the order in which they were first seen, as if the pieces were the
    /// whole text.
    ///
    /// # Errors
    ///
    /// [`TextTooLong`] if the different words take more than 4 GiB together.
    pub fn counts(&self) -> Result<Counts, TextTooLong> {
        let short = self.table.short.iter().map(|(key, &tally)| (Seen::Short(key.to_word()), tally));
        let long = self.table.long.iter().map(|(word, &tally)| (Seen::Long(word), tally));
        let mut tallies: Vec<_> = short.chain(long).collect();
        tallies.sort_unstable_by_key(|(_, tally)| tally.first);
        Counts::try_new(&tallies)
    }
}

impl fmt::Debug for TextCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextCounter")
            .field("words", &self.words)
            .field("different", &(self.table.short.len() + self.table.long.len()))
            .finish_non_exhaustive()
    }
}

/// A word of either table.
enum Seen<'a> {
    Short(ShortWord),
    Long(&'a str),
}

impl AsRef<str> for Seen<'_> {
    fn as_ref(&self) -> &str {
        match self {
            Self::Short(word) => word.as_ref(),
            Self::Long(word) => word,
        }
    }
}

/// Where the pieces that were counted one after another lie in the whole text.
///
/// A counter of some of a text's pieces numbers the words that it saw. This leads from those numbers
/// to positions in the text; see [`Counts::placed`]. The pieces have to be in the order of the text.
///
/// # Examples
///
/// ```
/// use roadshow::words::{Places, Tally, TextCounter};
///
/// // The first and the third piece of "a b | c d e | f".
/// let (mut counter, mut places) = (TextCounter::default(), Places::default());
/// places.push(counter.add("a b "), 0);
/// places.push(counter.add("f"), 5);
/// let counts = counter.counts()?.placed(&places);
/// assert_eq!(counts.iter().last(), Some(("f", Tally { count: 1, first: 5 })));
/// # Ok::<(), roadshow::words::TextTooLong>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Places {
    words: u64,
    /// Of each piece with words, the number of its first here, and in the text.
    pieces: Vec<(u64, u64)>,
}

impl Places {
    /// The next piece has so many words, and so many come before it in the text.
    pub fn push(&mut self, words: u64, position: u64) {
        if words > 0 {
            self.pieces.push((self.words, position));
            self.words += words;
        }
    }

    /// The position in the text of a word by its number here.
    pub(super) fn position(&self, word: u64) -> u64 {
        let after = self.pieces.partition_point(|&(first, _)| first <= word);
        let (first, position) = after.checked_sub(1).map_or((0, 0), |at| self.pieces[at]);
        // Saturating, since the number may come from elsewhere.
        position.saturating_add(word - first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::{Counting, tokenize, total};

    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            8 => "[a-dA-D]{1,2}".boxed(),
            1 => "[ab]{14,17}".boxed(),
            1 => prop::sample::select(vec!["ΑΣ", "’a", "İ", "b--", "a\0"]).prop_map(str::to_owned).boxed(),
        ];
        prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn text_has_the_counts_of_its_words(text in text()) {
            let mut counter = TextCounter::default();
            let words = tokenize(&text).unwrap();
            prop_assert_eq!(counter.add(&text), words.len() as u64);
            prop_assert_eq!(counter.counts().unwrap(), Counting::Hash.count_all(&words));
        }

        #[test]
        fn counters_of_some_pieces_have_the_counts_of_the_text_together(
            pieces in prop::collection::vec((text(), 0_usize..3), 0..12),
        ) {
            let mut counters = [(); 3].map(|()| (TextCounter::default(), Places::default()));
            let (mut whole, mut position) = (String::new(), 0);
            for (piece, counter) in &pieces {
                let (counter, places) = &mut counters[*counter];
                let words = counter.add(piece);
                places.push(words, position);
                position += words;
                whole += &format!("{piece} ");
            }
            let parts = counters.map(|(counter, places)| counter.counts().unwrap().placed(&places));
            let expect = Counting::Hash.count_all(&tokenize(&whole).unwrap());
            prop_assert_eq!(total(&parts).unwrap(), expect);
        }
    }
}
