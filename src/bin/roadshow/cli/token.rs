//! Cluster token as the operator gives it. Debug output never shows it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{CliError, CliResult};

/// Maximum length of a token in bytes.
const TOKEN_BYTES_MAX: usize = 4 << 10;

/// Next step in errors about a missing or wrong token.
pub(crate) const HOW_TO_GET_ONE: &str =
    "set ROADSHOW_TOKEN, or give --token-file, with the token that `roadshow start --head` printed";

/// Token text: one word, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenText(String);

impl TokenText {
    /// Returns the secret text.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // Quotes and backslashes would break the command that `roadshow start --head` prints for copying.
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

/// Source of a token.
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
    // Two bytes above the limit: a newline after the longest token is fine, a longer text fails to parse.
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
    fn token_is_one_word_and_hidden_in_debug_output() {
        let token: TokenText = " rs1_abc\n".parse().unwrap();
        assert_eq!((token.reveal(), format!("{token:?}").as_str()), ("rs1_abc", "TokenText(..)"));
        for text in ["", " \n", "a b", "a'b", "é", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(text.parse::<TokenText>().is_err(), "{text}");
        }
    }

    #[test]
    fn file_without_token_ends_with_exit_code_refused() {
        let missing = TokenFile::At(PathBuf::from("/proc/self/nothing")).read().unwrap_err();
        assert_eq!(missing.code, exit::REFUSED);
        let none = token(&b"\n"[..], Path::new("file")).unwrap_err();
        assert!(none.code == exit::REFUSED && none.to_string().contains("file"), "{none}");
        assert_eq!(token(&b"rs1_abc\n"[..], Path::new("file")).unwrap().reveal(), "rs1_abc");
    }
}
