//! A cluster's token, as it is given, found and kept. It never shows in debug output.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{CliError, CliResult};

/// The longest text that is taken for a token.
const TOKEN_BYTES_MAX: usize = 4 << 10;

/// What to do without one.
pub(crate) const HOW_TO_GET_ONE: &str =
    "set ROADSHOW_TOKEN, or give --token-file, to what `roadshow start --head` printed";

/// A token, one word.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenText(String);

impl TokenText {
    /// The text, for whoever is to have it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\');
        match text {
            "" => Err("it is empty".to_owned()),
            _ if text.len() > TOKEN_BYTES_MAX || !text.chars().all(fits) => {
                Err("a token is one word of letters and digits".to_owned())
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// Where a token is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenFile {
    StandardInput,
    At(PathBuf),
}

impl FromStr for TokenFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it must be a file, or - for the standard input".to_owned()),
            "-" => Ok(Self::StandardInput),
            path => Ok(Self::At(PathBuf::from(path))),
        }
    }
}

impl TokenFile {
    pub(crate) fn read(&self) -> CliResult<TokenText> {
        match self {
            Self::StandardInput => token(io::stdin().lock(), Path::new("the standard input")),
            Self::At(path) => {
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                token(file, path)
            }
        }
    }
}

fn token(from: impl Read, path: &Path) -> CliResult<TokenText> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX as u64 + 2)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, &error))?;
    text.parse().map_err(|error| {
        CliError::refused(format!("there is no token in {}: {error}", path.display()), HOW_TO_GET_ONE)
    })
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::refused(format!("cannot read the token from {}: {error}", path.display()), HOW_TO_GET_ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn a_token_is_one_word_that_does_not_show() {
        let token: TokenText = " rs1_abc\n".parse().unwrap();
        assert_eq!((token.reveal(), format!("{token:?}").as_str()), ("rs1_abc", "TokenText(..)"));
        for text in ["", " \n", "a b", "a'b", "é", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(text.parse::<TokenText>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_a_refusal() {
        let missing = TokenFile::At(PathBuf::from("/proc/self/nothing")).read().unwrap_err();
        assert_eq!(missing.code, exit::REFUSED);
        let none = token(&b"\n"[..], Path::new("file")).unwrap_err();
        assert!(none.code == exit::REFUSED && none.to_string().contains("file"), "{none}");
        assert_eq!(token(&b"rs1_abc\n"[..], Path::new("file")).unwrap().reveal(), "rs1_abc");
    }
}
