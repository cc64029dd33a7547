//! From text to words at the speed of memory: the tokenizer's inner loop.
//!
//! A text is taken in stretches that end at white space. A stretch of ASCII is classified 64 bytes
//! at a time without a branch a byte, which the compiler turns into vector instructions: one word of
//! bits says which of them separate, and where that changes, a word begins or ends. Any other
//! stretch is lower-cased as a string and walked by characters.
//!
//! Invariants:
//! - The words are those of the whole text, lower-cased at once and walked by characters. What
//!   stands beyond white space has no say in how a letter is lower-cased.
//! - Memory is two buffers of some [`STRETCH`], and the lower case of one stretch that is not ASCII
//!   or is a longer word.

/// Bytes that are classified together: as many as a word of bits has.
const BLOCK: usize = u64::BITS as usize;

/// The longest stretch of ASCII, in bytes: what is written for it stays in a core's nearest cache.
const STRETCH: usize = 8 << 10;

/// Bytes after the end of each word that can be read: a key is loaded in one piece.
const PAD: usize = size_of::<u128>();

/// So many bytes of ASCII are worth a stretch of their own between two others.
const WORTHWHILE: usize = 64;

/// Finds words; its buffers are kept from text to text.
pub(super) struct Scanner {
    /// The lower case of a stretch of ASCII, and whatever was there before.
    lower: Vec<u8>,
    /// Where in it words begin and end, in turn, and whatever was there before.
    edges: Vec<u32>,
}

/// A word within the text around it.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    /// At least [`PAD`] bytes longer than where the word ends.
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
        let bytes = self.around.as_bytes().get(self.start..self.start + PAD)?;
        let loaded = u128::from_le_bytes(bytes.try_into().ok()?);
        let len = self.end - self.start;
        Some(Key(loaded & LOW_BYTES.get(len)? | (len as u128) << LEN_SHIFT))
    }
}

/// A short word as one number: its bytes, the first lowest, zeros, and its length on top.
///
/// The length tells a word that ends in U+0000 from a shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    /// The longest word that is a key.
    pub(super) const BYTES_MAX: usize = PAD - 1;

    pub(super) fn to_word(self) -> ShortWord {
        ShortWord(self.0.to_le_bytes())
    }
}

/// The word of a [`Key`].
pub(super) struct ShortWord([u8; PAD]);

impl AsRef<str> for ShortWord {
    fn as_ref(&self) -> &str {
        let len = usize::from(self.0[Key::BYTES_MAX]);
        std::str::from_utf8(&self.0[..len]).expect("a key is made of a word")
    }
}

/// How far up in a key the length stands.
const LEN_SHIFT: usize = 8 * Key::BYTES_MAX;

/// By a length, the bits of so many bytes.
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
        // One block more than a stretch has, for the padding; as many edges more, since those of a
        // block are written eight at a time.
        Self { lower: vec![0; STRETCH + 2 * BLOCK], edges: vec![0; STRETCH + 2 * BLOCK] }
    }
}

impl Scanner {
    /// Shows every word of a text, in order.
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
        // What is behind the text separated it, or an earlier one.
        let around = std::str::from_utf8(&self.lower[..text.len() + PAD]);
        let around = around.expect("ASCII in lower case is ASCII");
        for &[start, end] in self.edges[..edges].as_chunks::<2>().0 {
            each(Word { around, start: start as usize, end: end as usize });
        }
    }

    /// Fills both buffers, and returns how many edges there are: two for each word.
    fn find_edges(&mut self, text: &[u8]) -> usize {
        let (blocks, tail) = text.as_chunks::<BLOCK>();
        // What is beyond the end separates.
        let mut last = [b' '; BLOCK];
        last[..tail.len()].copy_from_slice(tail);
        let places = self.lower.as_chunks_mut::<BLOCK>().0.iter_mut();

        let (mut found, mut before, mut taken) = (0, 1, false);
        let mut start = 0;
        for (block, lower) in blocks.iter().chain([&last]).zip(places) {
            let (mut separators, hyphens) = classify(block, lower);
            if hyphens != 0 || taken {
                let next = text.get(start + BLOCK) == Some(&b'-');
                separators |= dashes(hyphens, next, &mut taken);
            }
            let changes = separators ^ (separators << 1 | before);
            before = separators >> (BLOCK - 1);
            found += write_places(changes, start, &mut self.edges[found..]);
            start += BLOCK;
        }
        found
    }
}

/// The length of a stretch, in bytes, by what is in it.
enum Stretch {
    /// ASCII, and no more than [`STRETCH`].
    Ascii(usize),
    /// Whatever else.
    Other(usize),
}

impl Stretch {
    fn len(&self) -> usize {
        let (Self::Ascii(len) | Self::Other(len)) = *self;
        len
    }
}

/// The stretch that a text begins with. It ends behind white space, or with the text.
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
    // On to where ASCII goes on for long enough.
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

/// How many bytes of ASCII come before any others.
fn ascii_prefix(bytes: &[u8]) -> usize {
    let blocks = bytes.as_chunks::<BLOCK>().0.iter().take_while(|block| block.is_ascii());
    let start = blocks.count() * BLOCK;
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii()).count()
}

/// Writes the lower case of a block, and returns which bytes separate and which are hyphens, the
/// first lowest.
#[inline]
fn classify(block: &[u8; BLOCK], lower: &mut [u8; BLOCK]) -> (u64, u64) {
    let (mut separators, mut hyphens) = ([0; BLOCK], [0; BLOCK]);
    let mut hyphen = 0;
    for at in 0..BLOCK {
        let byte = block[at];
        separators[at] = u8::from(separates(byte));
        hyphens[at] = u8::from(byte == b'-');
        hyphen |= hyphens[at];
        lower[at] = byte | u8::from(is_upper(byte)) << 5;
    }
    (bits(&separators), if hyphen == 0 { 0 } else { bits(&hyphens) })
}

/// [`is_removed`] and [`is_python_space`] for ASCII, as few ranges.
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

/// One bit for each flag, the first lowest.
#[inline]
fn bits(flags: &[u8; BLOCK]) -> u64 {
    // The product brings the lowest bits of eight bytes together in its highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let eights = flags.as_chunks::<8>().0.iter().enumerate();
    eights.fold(0, |bits, (at, &eight)| {
        bits | (u64::from_le_bytes(eight).wrapping_mul(GATHER) >> (BLOCK - 8)) << (8 * at)
    })
}

/// Those of the hyphens that stand in pairs, counted from the left.
///
/// `next` is whether a hyphen follows the block. `taken` is whether the first of the block is the
/// second of a pair, and becomes the same of the block after it.
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

/// Writes where in the text the bits of a block are set, and returns how many are.
#[inline]
fn write_places(mut bits: u64, start: usize, places: &mut [u32]) -> usize {
    let count = bits.count_ones() as usize;
    for eight in places.as_chunks_mut::<8>().0 {
        for place in eight {
            // Beyond the last it is of no use, and cheaper than to ask each time.
            *place = start as u32 + bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
        }
        if bits == 0 {
            break;
        }
    }
    count
}

/// The way for all text: lower case first, since one letter may become several.
fn words_by_characters(text: &str, each: &mut impl FnMut(Word<'_>)) {
    let mut lower = text.to_lowercase();
    let len = lower.len();
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

/// The single characters of the lecture's `toRemove`. Its sequences of an apostrophe and white space
/// need no rule of their own, since every apostrophe goes; `--` is the scanner's.
pub(super) const fn is_removed(char: char) -> bool {
    matches!(char, ',' | ';' | '.' | '"' | '\'' | '!' | '(' | ')' | '?' | ']' | '[' | ':' | '*')
}

/// Whether Python's `str.split()` separates here.
pub(super) fn is_python_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scanned(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        Scanner::default().each_word(text, |word| words.push(word.as_str().to_owned()));
        words
    }

    /// The whole text in one piece, by characters.
    fn expected(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        words_by_characters(text, &mut |word| words.push(word.as_str().to_owned()));
        words
    }

    /// Text of many blocks, with what the scanner looks for at any place in them.
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
    fn scanner_forgets_one_text_before_the_next() {
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
