//! Splits a text into words at memory speed: the tokenizer's inner loop.
//!
//! A text is taken in stretches that end at white space. An ASCII stretch is classified 64 bytes at a
//! time without a branch for each byte, which the compiler turns into vector instructions. The result
//! is a mask of the separators; a word begins or ends where two neighbouring bits differ:
//!
//! ```text
//! text         t o   b e ,   o r   (the first byte is bit 0)
//! separators   . . X . . X X . . X
//! edges        ^   ^ ^   ^   ^   ^ (word starts and ends, alternating)
//! ```
//!
//! Any other stretch is lower-cased as a string and walked by characters.
//!
//! Invariants:
//! - The words are those of the whole text, lower-cased in one piece and walked by characters. Text
//!   beyond white space does not influence how a letter is lower-cased.
//! - Memory use is two buffers of about [`STRETCH`] entries, and the lower case of one stretch that is
//!   not ASCII or is a longer word.

/// Bytes of one block: one for each bit of a mask.
const BLOCK: usize = u64::BITS as usize;

/// Maximum length of an ASCII stretch, in bytes. The buffers of a stretch fit into a core's L1 cache.
const STRETCH: usize = 8 << 10;

/// Readable bytes after the end of each word, in bytes. [`Word::key`] loads a full `u128`, even for a short
/// word.
const PAD: usize = size_of::<u128>();

/// Minimum length of an ASCII run that ends a stretch of other text, in bytes. A shorter run costs more to
/// switch for than to walk by characters.
const WORTHWHILE: usize = 64;

/// Finds the words of texts; the buffers are reused for every text.
pub(super) struct Scanner {
    /// Lower case of an ASCII stretch, followed by bytes of earlier stretches.
    lower: Vec<u8>,
    /// Offsets in `lower` where words begin and end, alternating, followed by offsets of earlier stretches.
    edges: Vec<u32>,
}

/// Word within its surrounding text.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    /// Text that continues for at least [`PAD`] bytes behind the word.
    around: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Word<'a> {
    pub(super) fn as_str(self) -> &'a str {
        &self.around[self.start..self.end]
    }

    /// The word as a number, if it has at most [`Key::BYTES_MAX`] bytes.
    #[inline]
    pub(super) fn key(self) -> Option<Key> {
        // One unaligned load of 16 bytes, whatever the length of the word; the mask clears the bytes
        // behind it. A loop over the bytes would end in an unpredictable branch.
        let bytes = self.around.as_bytes().get(self.start..self.start + PAD)?;
        let loaded = u128::from_le_bytes(bytes.try_into().ok()?);
        let len = self.end - self.start;
        Some(Key(loaded & LOW_BYTES.get(len)? | (len as u128) << LEN_SHIFT))
    }
}

/// Short word as one number, so that it is hashed and compared without a memory access.
///
/// ```text
/// byte   0 ......... len-1 | len ...... 14 | 15
///        bytes of the word | zeros         | len
/// ```
///
/// The length distinguishes a word that ends in U+0000 from a shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    /// Maximum length of a word that has a key, in bytes.
    pub(super) const BYTES_MAX: usize = PAD - 1;

    pub(super) fn to_word(self) -> ShortWord {
        ShortWord(self.0.to_le_bytes())
    }
}

/// Word of a [`Key`] as a string.
pub(super) struct ShortWord([u8; PAD]);

impl AsRef<str> for ShortWord {
    fn as_ref(&self) -> &str {
        let len = usize::from(self.0[Key::BYTES_MAX]);
        std::str::from_utf8(&self.0[..len]).expect("a key is made of a word")
    }
}

/// Position of the length in a key, in bits.
const LEN_SHIFT: usize = 8 * Key::BYTES_MAX;

/// Mask of the lowest bytes of a key, by their number.
const LOW_BYTES: [u128; PAD] = {
    let mut masks = [0; PAD];
    let mut len = 1;
    while len < PAD {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

impl Default for Scanner {
    fn default() -> Self {
        // One block more than a stretch has, for the padding. The edges need as many more, since
        // `write_offsets` writes the edges of a block eight at a time.
        Self { lower: vec![0; STRETCH + 2 * BLOCK], edges: vec![0; STRETCH + 2 * BLOCK] }
    }
}

impl Scanner {
    /// Calls `each` with every word of a text, in order.
    pub(super) fn each_word(&mut self, text: &str, mut each: impl FnMut(Word<'_>)) {
        let mut rest = text;
        while !rest.is_empty() {
            let stretch = first_stretch(rest);
            let (now, later) = rest.split_at(stretch.len());
            match stretch {
                Stretch::Ascii(_) => self.ascii_words(now.as_bytes(), &mut each),
                Stretch::Other(_) => words_by_characters(now, &mut each),
            }
            rest = later;
        }
    }

    fn ascii_words(&mut self, text: &[u8], each: &mut impl FnMut(Word<'_>)) {
        let edges = self.find_edges(text);
        // The bytes behind the text are the padding of the last block, or ASCII of an earlier stretch.
        let around = std::str::from_utf8(&self.lower[..text.len() + PAD]);
        let around = around.expect("ASCII in lower case is ASCII");
        for &[start, end] in self.edges[..edges].as_chunks::<2>().0 {
            each(Word { around, start: start as usize, end: end as usize });
        }
    }

    /// Fills both buffers and returns the number of edges: two for each word.
    fn find_edges(&mut self, text: &[u8]) -> usize {
        let (blocks, tail) = text.as_chunks::<BLOCK>();
        // The last block is padded with separators: they end the last word without a special case.
        let mut last = [b' '; BLOCK];
        last[..tail.len()].copy_from_slice(tail);
        let lower_blocks = self.lower.as_chunks_mut::<BLOCK>().0.iter_mut();

        let (mut found, mut before, mut taken) = (0, 1, false);
        let mut start = 0;
        for (block, lower) in blocks.iter().chain([&last]).zip(lower_blocks) {
            let (mut separators, hyphens) = classify(block, lower);
            // A pair of hyphens may lie across two blocks, so `taken` counts as well. Text without hyphens
            // skips this step.
            if hyphens != 0 || taken {
                let next = text.get(start + BLOCK) == Some(&b'-');
                separators |= dashes(hyphens, next, &mut taken);
            }
            // `before` carries the last separator bit into this block, so a word across two blocks has no
            // edge at their boundary.
            let changes = separators ^ (separators << 1 | before);
            before = separators >> (BLOCK - 1);
            found += write_offsets(changes, start, &mut self.edges[found..]);
            start += BLOCK;
        }
        found
    }
}

/// Length of a stretch in bytes, by the kind of its text.
enum Stretch {
    /// ASCII of at most [`STRETCH`] bytes.
    Ascii(usize),
    /// Text with other characters, or without white space near its start.
    Other(usize),
}

impl Stretch {
    fn len(&self) -> usize {
        let (Self::Ascii(len) | Self::Other(len)) = *self;
        len
    }
}

/// Returns the first stretch of a text, which ends after white space or with the text.
fn first_stretch(text: &str) -> Stretch {
    let bytes = text.as_bytes();
    let near = &bytes[..bytes.len().min(STRETCH)];
    let ascii = ascii_prefix(near);
    if ascii == bytes.len() {
        return Stretch::Ascii(ascii);
    }
    if let Some(space) = near[..ascii].iter().rposition(u8::is_ascii_whitespace) {
        return Stretch::Ascii(space + 1);
    }
    // A stretch of other text ends only where at least `WORTHWHILE` bytes of ASCII follow. A text that
    // mixes both would otherwise switch between the two scanners at every word.
    let mut end = ascii;
    loop {
        let Some(space) = bytes[end..].iter().position(u8::is_ascii_whitespace) else {
            return Stretch::Other(bytes.len());
        };
        end += space + 1;
        let next = &bytes[end..bytes.len().min(end + WORTHWHILE)];
        if end >= STRETCH || next.is_ascii() {
            return Stretch::Other(end);
        }
        end += ascii_prefix(next);
    }
}

/// Returns the length of the ASCII prefix, in bytes.
fn ascii_prefix(bytes: &[u8]) -> usize {
    let blocks = bytes.as_chunks::<BLOCK>().0.iter().take_while(|block| block.is_ascii());
    let start = blocks.count() * BLOCK;
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii()).count()
}

/// Writes the lower case of a block and returns the masks of its separators and its hyphens. Bit 0 is the
/// first byte.
#[inline]
fn classify(block: &[u8; BLOCK], lower: &mut [u8; BLOCK]) -> (u64, u64) {
    let (mut separators, mut hyphens) = ([0; BLOCK], [0; BLOCK]);
    let mut hyphen = 0;
    for at in 0..BLOCK {
        let byte = block[at];
        // The flags go to byte arrays first. The bytes do not depend on each other, so the loop becomes
        // comparisons of whole vectors.
        separators[at] = u8::from(separates(byte));
        hyphens[at] = u8::from(byte == b'-');
        // Most blocks have no hyphen: one test here saves the second gather.
        hyphen |= hyphens[at];
        // Upper and lower case of ASCII differ only in bit 5.
        lower[at] = byte | u8::from(is_upper(byte)) << 5;
    }
    (bits(&separators), if hyphen == 0 { 0 } else { bits(&hyphens) })
}

/// Combines [`is_removed`] and [`is_python_space`] for ASCII, in as few ranges as possible.
#[inline]
const fn separates(byte: u8) -> bool {
    // Tabs and line ends; U+001C to the quotation mark; apostrophe to asterisk; comma and full stop;
    // colon and semicolon.
    byte.wrapping_sub(0x09) < 5
        || byte.wrapping_sub(0x1c) < 7
        || byte.wrapping_sub(b'\'') < 4
        || byte | 2 == b'.'
        || byte | 1 == b';'
        || byte == b'?'
        || byte == b'['
        || byte == b']'
}

#[inline]
const fn is_upper(byte: u8) -> bool {
    byte.wrapping_sub(b'A') < 26
}

/// Packs the flags into a mask; bit 0 is the first flag.
#[inline]
fn bits(flags: &[u8; BLOCK]) -> u64 {
    // The product brings the lowest bits of eight bytes together in its highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let eights = flags.as_chunks::<8>().0.iter().enumerate();
    eights.fold(0, |bits, (at, &eight)| {
        bits | (u64::from_le_bytes(eight).wrapping_mul(GATHER) >> (BLOCK - 8)) << (8 * at)
    })
}

/// Returns the mask of the hyphens that form pairs, counted from the left.
///
/// `next` is true if the byte after the block is a hyphen. `taken` is true if the first byte of the block
/// is the second of a pair; on return it says the same of the next block.
fn dashes(hyphens: u64, next: bool, taken: &mut bool) -> u64 {
    let followed = hyphens & (hyphens >> 1 | u64::from(next) << (BLOCK - 1));
    if !*taken && followed == 0 {
        return 0;
    }
    let (mut found, mut from) = (u64::from(*taken), usize::from(*taken));
    *taken = false;
    while from < BLOCK && followed >> from != 0 {
        let first = from + (followed >> from).trailing_zeros() as usize;
        found |= 0b11 << first;
        *taken = first == BLOCK - 1;
        from = first + 2;
    }
    found
}

/// Writes the offsets of the set bits of a block and returns their number.
#[inline]
fn write_offsets(mut bits: u64, start: usize, offsets: &mut [u32]) -> usize {
    let count = bits.count_ones() as usize;
    for eight in offsets.as_chunks_mut::<8>().0 {
        for offset in eight {
            // Entries beyond the last set bit are overwritten later. Always writing eight avoids an
            // unpredictable branch for each edge.
            *offset = start as u32 + bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
        }
        if bits == 0 {
            break;
        }
    }
    count
}

/// Splits any text by characters. The text is lower-cased first, since one letter may become several.
fn words_by_characters(text: &str, each: &mut impl FnMut(Word<'_>)) {
    // The stretch is lower-cased as a whole: the form of a sigma depends on the letters around it.
    let mut lower = text.to_lowercase();
    let len = lower.len();
    // `Word::key` reads `PAD` bytes from the start of any word.
    lower.extend(['\0'; PAD]);
    let mut show = |start, end| {
        if start < end {
            each(Word { around: &lower, start, end });
        }
    };
    let mut start = 0;
    let mut chars = lower[..len].char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let dash = char == '-' && chars.next_if(|&(_, next)| next == '-').is_some();
        if dash || is_removed(char) || is_python_space(char) {
            show(start, at);
            start = at + char.len_utf8() + usize::from(dash);
        }
    }
    show(start, len);
}

/// Tests for the single characters of the lecture's `toRemove`. Its sequences of an apostrophe and white
/// space need no rule, since every apostrophe goes; the scanner handles `--`.
pub(super) const fn is_removed(char: char) -> bool {
    matches!(char, ',' | ';' | '.' | '"' | '\'' | '!' | '(' | ')' | '?' | ']' | '[' | ':' | '*')
}

/// Tests whether Python's `str.split()` separates at a character.
pub(super) fn is_python_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn scanned(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        Scanner::default().each_word(text, |word| words.push(word.as_str().to_owned()));
        words
    }

    /// Splits the whole text by characters, as the reference.
    fn expected(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        words_by_characters(text, &mut |word| words.push(word.as_str().to_owned()));
        words
    }

    /// Generates texts of many blocks with hyphens, separators and non-ASCII letters at any offset.
    fn long_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            8 => "[a-zA-Z]{1,9} ",
            4 => "-{1,5}",
            2 => "[ -~]{0,70}",
            1 => prop::sample::select(vec!["Σ", "ΑΣ", "İ", "’", "Α\u{301}Σ", "\u{1c}", "\n", "\u{a0}", "\0"])
                .prop_map(str::to_owned),
            1 => (0..STRETCH).prop_map(|len| "x".repeat(len)),
        ];
        prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn stretches_have_the_words_of_the_text_in_one_piece(text in long_text()) {
            prop_assert_eq!(scanned(&text), expected(&text));
        }

        #[test]
        fn dashes_are_pairs_from_the_left(text in "[-a]{0,300}") {
            prop_assert_eq!(scanned(&text), expected(&text));
        }

        #[test]
        fn keys_are_the_short_words(text in "[a-cΣ\0-]{0,20}") {
            Scanner::default().each_word(&text, |word| match word.key() {
                Some(key) => assert_eq!(key.to_word().as_ref(), word.as_str()),
                None => assert!(word.as_str().len() > Key::BYTES_MAX),
            });
        }
    }

    #[test]
    fn ascii_separates_as_its_characters_do() {
        for byte in 0..128 {
            let char = char::from(byte);
            assert_eq!(separates(byte), is_removed(char) || is_python_space(char), "{char:?}");
            assert_eq!(is_upper(byte), char.is_ascii_uppercase(), "{char:?}");
        }
    }

    #[test]
    fn words_of_one_text_do_not_leak_into_the_next() {
        let mut scanner = Scanner::default();
        let mut words = Vec::new();
        for text in ["one two three", "", "four -", "- five", "x"] {
            scanner.each_word(text, |word| words.push(word.as_str().to_owned()));
        }
        assert_eq!(words, ["one", "two", "three", "four", "-", "-", "five", "x"]);
    }

    #[test]
    fn words_that_differ_in_zeros_have_different_keys() {
        let mut keys = Vec::new();
        Scanner::default().each_word("a a\0 \0a \0 \0\0", |word| keys.extend(word.key()));
        keys.sort_by_key(|key| key.0);
        keys.dedup();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn every_alignment_of_an_end_is_seen() {
        for len in 0..4 * BLOCK {
            let text = "ab ".repeat(len / 3) + &"c".repeat(len % 3);
            assert_eq!(scanned(&text), expected(&text), "{len} bytes");
            let long = "d".repeat(len) + " e";
            assert_eq!(scanned(&long), expected(&long), "a word of {len} bytes");
        }
    }

    #[test]
    fn a_stretch_ends_behind_white_space_or_with_the_text() {
        for text in [
            "a ’b c",
            "’a ’b",
            &"x".repeat(STRETCH + 1),
            &" x".repeat(STRETCH),
            "’ x ".repeat(STRETCH).as_str(),
        ] {
            let mut rest = text;
            while !rest.is_empty() {
                let (stretch, later) = rest.split_at(first_stretch(rest).len());
                assert!(later.is_empty() || stretch.ends_with(|char: char| char.is_ascii_whitespace()));
                rest = later;
            }
        }
    }
}
