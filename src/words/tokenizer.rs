//! Splits a text into its words, as the lecture's `loadBook` does.
//!
//! The lecture lower-cases the whole text, replaces each of a list of characters and sequences by a space,
//! and calls Python's `split()`. [`tokenize`] does the same in one pass of the scanner. The tests compare
//! it with a line-by-line port of the lecture's code.
//!
//! Compared with CPython 3.11 for every code point, alone and on both sides of a sigma:
//! - `split()` separates at the characters of `char::is_whitespace` and at U+001C to U+001F.
//! - `lower()` is [`str::to_lowercase`], final sigma and U+0130 included. The two differ only where their
//!   versions of Unicode do (14 there, later here): in letters that were not assigned yet, and in the sigma
//!   next to U+0295 or U+1171E, whose class has changed.
//! - Reading a file in text mode turns `\r\n` and `\r` into `\n`, which cannot change the words. All three
//!   are white space, and none is a letter or ignorable next to a sigma.

use super::{
    list::{Builder, TextTooLong, WordList},
    scan::Scanner,
};

/// Splits a text into words, in lower case and without punctuation.
///
/// An apostrophe separates, as in the lecture (`don't` is two words), and so does `--`. A single hyphen
/// belongs to its word.
///
/// # Errors
///
/// [`TextTooLong`] if the words take more than 4 GiB together.
///
/// # Examples
///
/// ```
/// use roadshow::words::tokenize;
///
/// let words = tokenize("\"Don't,\" said the well-read Cat -- twice.")?;
/// let words: Vec<_> = words.iter().collect();
/// assert_eq!(words, ["don", "t", "said", "the", "well-read", "cat", "twice"]);
/// # Ok::<(), roadshow::words::TextTooLong>(())
/// ```
pub fn tokenize(text: &str) -> Result<WordList, TextTooLong> {
    let mut words = Builder::default();
    let mut fits = Ok(());
    Scanner::default().each_word(text, |word| {
        // The scanner cannot be stopped early, so the words after the first error are skipped.
        if fits.is_ok() {
            fits = words.push(word.as_str());
        }
    });
    fits.map(|()| words.finish())
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::super::scan::is_python_space;
    use super::*;

    /// The lecture's list of characters and sequences, in its order.
    const TO_REMOVE: [&str; 18] =
        [",", ";", ".", "\"", "' ", "\n'", " '", "!", "(", ")", "?", "--", "'", "\"", "]", "[", ":", "*"];

    /// Line-by-line port of the lecture's `loadBook`, as the reference.
    fn load_book(text: &str) -> Vec<String> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut text = text.to_lowercase();
        for bad in TO_REMOVE {
            text = text.replace(bad, " ");
        }
        let words = text.split(is_python_space).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        assert_eq!(tokenize(text).unwrap().iter().collect::<Vec<_>>(), expect, "text {text:?}");
        assert_eq!(load_book(text), expect, "line by line, text {text:?}");
    }

    /// Generates text dense in the characters that the rules treat specially.
    fn tricky_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => prop::sample::select(TO_REMOVE.to_vec()),
            2 => prop::sample::select(vec!["-", "\r", "\r\n", "\u{1c}", "\u{1f}", "\u{85}", "\u{3000}"]),
            2 => prop::sample::select(vec!["Σ", "İ", "ß", "ǅ", "\u{301}", "\u{200b}", "\u{feff}"]),
            4 => prop::sample::select(vec!["a", "B", "don", "The", "λ", "Ö", "_", "`"]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn one_pass_finds_the_words_of_the_lectures_chain(text in tricky_text()) {
            let words = tokenize(&text).unwrap();
            prop_assert_eq!(words.iter().collect::<Vec<_>>(), load_book(&text));
        }

        #[test]
        fn any_text_gives_the_words_of_the_lectures_chain(text: String) {
            let words = tokenize(&text).unwrap();
            prop_assert_eq!(words.iter().collect::<Vec<_>>(), load_book(&text));
        }
    }

    #[test]
    fn punctuation_of_the_lecture_separates_and_the_rest_stays() {
        check(
            "a,b;c.d\"e'f!g(h)i?j--k]l[m:n*o",
            &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"],
        );
        check("`Who' _are_ well-read {x}/y", &["`who", "_are_", "well-read", "{x}/y"]);
        check("", &[]);
        check(" ... ' -- \n", &[]);
    }

    #[test]
    fn hyphens_separate_in_pairs_from_the_left() {
        check("a---b", &["a", "-b"]);
        check("a----b - c-", &["a", "b", "-", "c-"]);
        check("-.- -'-", &["-", "-", "-", "-"]);
    }

    #[test]
    fn line_ends_of_any_kind_only_separate() {
        check("one\r\n'two\rthree\n'four'\r\n", &["one", "two", "three", "four"]);
        check("ΑΣ\r\nΑΣ\rΑΣ", &["ας", "ας", "ας"]);
    }

    #[test]
    fn white_space_is_where_python_splits() {
        // Every character at which CPython 3.11 splits.
        let expect: Vec<char> = "\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}\u{1680}\
            \u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\
            \u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}"
            .chars()
            .collect();
        let spaces: Vec<char> = ('\0'..=char::MAX).filter(|&char| is_python_space(char)).collect();
        assert_eq!(spaces, expect);
    }

    #[test]
    fn lower_case_is_pythons() {
        // Each pair was printed by CPython 3.11.
        check("İstanbul", &["i\u{307}stanbul"]);
        check("STRASSE STRAẞE ǅ K Å", &["strasse", "straße", "ǆ", "k", "å"]);
        check("ΟΔΟΣ ΣΑΣ Σ ΑΣΑ", &["οδος", "σας", "σ", "ασα"]);
        check("Α\u{301}Σ\u{301} Σ\u{301}", &["α\u{301}ς\u{301}", "σ\u{301}"]);
        // The sigma is lower-cased before the punctuation is removed. An apostrophe, a full stop or a colon
        // does not end a word for that rule; a comma does.
        check("ΑΣ'Α ΑΣ.Α ΑΣ:Α ΑΣ,Α", &["ασ", "α", "ασ", "α", "ασ", "α", "ας", "α"]);
        check("ΑΣ' Α", &["ας", "α"]);
    }
}
