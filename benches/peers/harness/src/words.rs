//! Lists of words: made up from a fixed seed, or read from a file.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Words of the list that is made up.
const MADE_UP_WORDS: usize = 26_000;

/// Returns the words of a file, or a list that is the same on every machine.
pub(crate) fn list(file: Option<&Path>) -> Result<Vec<String>> {
    let Some(file) = file else { return Ok(made_up()) };
    let text =
        std::fs::read(file).with_context(|| format!("failed to read the words of {}", file.display()))?;
    let words: Vec<String> = String::from_utf8_lossy(&text).split_whitespace().map(str::to_owned).collect();
    ensure!(!words.is_empty(), "{} has no words; give another file", file.display());
    Ok(words)
}

/// Words of one to ten letters, 4.4 in the mean as in English prose.
fn made_up() -> Vec<String> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        // xorshift64: no crate for what has to look like words only.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let word = |_| {
        // The smaller of two draws: short words are frequent.
        let length = 1 + below(10).min(below(12));
        (0..length).map(|_| char::from(b'a' + below(26) as u8)).collect()
    };
    (0..MADE_UP_WORDS).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_words_are_short_and_the_same_each_time() {
        let words = made_up();
        let bytes: usize = words.iter().map(String::len).sum();
        assert_eq!(words, made_up());
        assert_eq!(words.len(), MADE_UP_WORDS);
        assert!((4.0..5.0).contains(&(bytes as f64 / words.len() as f64)), "{bytes} bytes");
    }
}
