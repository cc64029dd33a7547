//! Counts words straight from text and copies only the first occurrence of each.

use std::fmt;

use hashbrown::HashMap;

use super::{
    count::{Counts, Tally},
    list::TextTooLong,
    scan::{Key, Scanner, ShortWord, Word},
};

/// Counts the words of pieces of text, one piece after another.
///
/// The words are those of [`tokenize`](super::tokenize). Pieces have to end at white space, or a word is
/// split in two. Memory use is a table of the distinct words.
///
/// The tables use hashbrown's default hasher with a new seed for each process, so no text can be crafted
/// whose words collide.
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
    table: WordTable,
    words: u64,
}

/// Tallies of the words seen.
#[derive(Default)]
struct WordTable {
    /// Words of at most [`Key::BYTES_MAX`] bytes, nearly all words of most languages. They are compared and
    /// hashed as one number.
    short: HashMap<Key, Tally>,
    long: HashMap<String, Tally>,
}

impl WordTable {
    /// Counts a long word, or the first occurrence of a short one.
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
    /// Counts a piece of text and returns its number of words.
    pub fn add(&mut self, piece: &str) -> u64 {
        let Self { scanner, table, words } = self;
        let before = *words;
        scanner.each_word(piece, |word| {
            // Only the common case, a known short word, is inlined. Insertions would make the loop too
            // large for the compiler to keep its state in registers.
            match word.key().and_then(|key| table.short.get_mut(&key)) {
                Some(tally) => tally.count += 1,
                None => table.see_rare(word, *words),
            }
            *words += 1;
        });
        *words - before
    }

    /// Returns the number of words of all pieces.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Returns the distinct words in the order of first occurrence, as if the pieces were the whole text.
    ///
    /// # Errors
    ///
    /// [`TextTooLong`] if the distinct words take more than 4 GiB together.
    pub fn counts(&self) -> Result<Counts, TextTooLong> {
        let short = self.table.short.iter().map(|(key, &tally)| (Seen::Short(key.to_word()), tally));
        let long = self.table.long.iter().map(|(word, &tally)| (Seen::Long(word), tally));
        let mut tallies: Vec<_> = short.chain(long).collect();
        // Hash tables iterate in a random order. First positions are unique, so an unstable sort gives one
        // order.
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

/// Word of either table.
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

/// Maps word numbers of one counter to positions in the whole text.
///
/// A counter of some of a text's pieces numbers the words that it saw; see [`Counts::placed`]. The pieces
/// have to be added in the order of the text.
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
    /// For each piece with words: number of its first word in the counter, and its position in the text.
    pieces: Vec<(u64, u64)>,
}

impl Places {
    /// Adds a piece of `words` words that starts at `position` in the text.
    pub fn push(&mut self, words: u64, position: u64) {
        if words > 0 {
            self.pieces.push((self.words, position));
            self.words += words;
        }
    }

    /// Converts a word's number in the counter to its position in the text.
    pub(super) fn position(&self, word: u64) -> u64 {
        let after = self.pieces.partition_point(|&(first, _)| first <= word);
        let (first, position) = after.checked_sub(1).map_or((0, 0), |at| self.pieces[at]);
        // Saturates: a Node sent the number, and a wrong one must not panic here.
        position.saturating_add(word - first)
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
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
        #![proptest_config(property_tests::default_cases())]

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
