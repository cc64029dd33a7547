//! Cluster token: the digest of the authority's key and a secret, as one word that people can copy.
//!
//! ```text
//! rs1_ base32( key digest, 32 bytes | secret, 16 bytes | checksum, 4 bytes )      84 letters for 52 bytes
//! ```

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::KeyDigest;
use crate::session::Secret;

/// Prefix that names the format and its version.
const PREFIX: &str = "rs1_";

/// Base32 alphabet of RFC 4648 in lower case. It has no digit that resembles a letter, and a double click selects
/// the whole token.
const BASE32_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

const DIGEST_BYTES: usize = 32;
/// Entropy of an AES-128 key: it cannot be guessed, and the HMAC proofs reveal nothing of it.
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
const TOKEN_BYTES: usize = DIGEST_BYTES + SECRET_BYTES + CHECKSUM_BYTES;

/// Credential that admits a process to a cluster: the digest of the authority's key, and a secret.
///
/// `Display` writes the token itself; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    authority: KeyDigest,
    secret: [u8; SECRET_BYTES],
}

/// Text that is not a token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The text has another format.
    #[error(
        "that is no token: one begins with `{PREFIX}`; copy it from what `roadshow start --head` printed"
    )]
    NotAToken,
    /// The text has the format of a token but fails its checksum or length.
    #[error("the token is mistyped: a letter of it is wrong or missing; copy all of it once more")]
    Mistyped,
}

impl Token {
    /// Token of an authority, with a new random secret.
    #[cfg(feature = "cli")]
    pub(in crate::cluster) fn new(authority: KeyDigest) -> Self {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).expect("the operating system gives random numbers");
        Self { authority, secret }
    }

    /// Digest of the authority's public key.
    pub(in crate::cluster) fn authority(&self) -> &KeyDigest {
        &self.authority
    }

    /// Shared secret of the hosts' session handshakes, derived from the token's secret.
    #[must_use]
    pub(crate) fn session_secret(&self) -> Secret {
        // Derived, so that a leaked session secret does not authenticate a token RPC.
        Secret::from_bytes(self.mac(b"roadshow session", b"").finalize().into_bytes().into())
    }

    /// HMAC proof of the secret for one direction (`label`) of the connection with this channel binding.
    pub(in crate::cluster) fn prove(&self, label: &[u8], binding: &[u8]) -> [u8; 32] {
        self.mac(label, binding).finalize().into_bytes().into()
    }

    /// Verifies a proof in constant time.
    pub(in crate::cluster) fn verify(&self, label: &[u8], binding: &[u8], proof: &[u8]) -> bool {
        self.mac(label, binding).verify_slice(proof).is_ok()
    }

    fn mac(&self, label: &[u8], data: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of every length");
        // No separator is needed: no label in use is a prefix of another.
        mac.update(label);
        mac.update(data);
        mac
    }

    fn bytes(&self) -> [u8; TOKEN_BYTES] {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..DIGEST_BYTES].copy_from_slice(&self.authority);
        bytes[DIGEST_BYTES..][..SECRET_BYTES].copy_from_slice(&self.secret);
        let checksum = checksum(&bytes[..DIGEST_BYTES + SECRET_BYTES]);
        bytes[DIGEST_BYTES + SECRET_BYTES..].copy_from_slice(&checksum);
        bytes
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from(PREFIX);
        let (mut bits, mut have) = (0_u32, 0);
        for byte in self.bytes() {
            bits = bits << 8 | u32::from(byte);
            have += 8;
            while have >= 5 {
                have -= 5;
                text.push(BASE32_ALPHABET[(bits >> have & 31) as usize].into());
            }
        }
        if have > 0 {
            text.push(BASE32_ALPHABET[(bits << (5 - have) & 31) as usize].into());
        }
        f.write_str(&text)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Accepts upper case and surrounding blanks.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let letters = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        let (mut bits, mut have) = (0_u32, 0);
        for letter in letters.bytes() {
            let value = BASE32_ALPHABET.iter().position(|it| *it == letter).ok_or(TokenError::Mistyped)?;
            bits = bits << 5 | value as u32;
            have += 5;
            if have >= 8 {
                have -= 8;
                bytes.push((bits >> have) as u8);
            }
        }
        let bytes: [u8; TOKEN_BYTES] = bytes.try_into().map_err(|_| TokenError::Mistyped)?;
        let mut token = Self { authority: [0; DIGEST_BYTES], secret: [0; SECRET_BYTES] };
        token.authority.copy_from_slice(&bytes[..DIGEST_BYTES]);
        token.secret.copy_from_slice(&bytes[DIGEST_BYTES..][..SECRET_BYTES]);
        // The checksum does not cover the unused bits of the last letter nor surplus letters, which would give one token
        // several spellings. Writing it again and comparing covers both, and the checksum too.
        if token.to_string() == text { Ok(token) } else { Err(TokenError::Mistyped) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { authority: [0xa5; 32], secret: [0x3c; 16] };

    #[test]
    fn token_is_one_word_and_survives_a_round_trip() {
        let text = TOKEN.to_string();
        assert_eq!(
            text,
            "rs1_uws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuwstypb4hq6dypb4hq6dypb4hq6dy3htre6a"
        );
        assert_eq!(text.parse(), Ok(TOKEN));
        assert_eq!(format!(" {}\n", text.to_uppercase()).parse(), Ok(TOKEN));
    }

    #[test]
    fn mistyped_token_is_distinguished_from_other_text() {
        let text = TOKEN.to_string();
        for at in PREFIX.len()..text.len() {
            for letter in ["a", "b", "7", "1", "-"] {
                if !text[at..].starts_with(letter) {
                    let mistyped = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
                    assert_eq!(mistyped.parse::<Token>(), Err(TokenError::Mistyped), "{mistyped}");
                }
            }
            assert_eq!(text[..at].parse::<Token>(), Err(TokenError::Mistyped), "cut at {at}");
        }
        assert_eq!(format!("{text}a").parse::<Token>(), Err(TokenError::Mistyped));
        for other in ["", "rs1", "hunter2", &text[1..]] {
            assert_eq!(other.parse::<Token>(), Err(TokenError::NotAToken), "{other}");
        }
    }

    #[test]
    fn proof_holds_only_for_its_label_connection_and_secret() {
        let proof = TOKEN.prove(b"one side", b"connection");
        let other = Token { secret: [1; 16], ..TOKEN };

        assert!(TOKEN.verify(b"one side", b"connection", &proof));
        assert!(!TOKEN.verify(b"the other", b"connection", &proof));
        assert!(!TOKEN.verify(b"one side", b"another", &proof));
        assert!(!other.verify(b"one side", b"connection", &proof));
        assert!(!TOKEN.verify(b"one side", b"connection", &proof[..31]));
    }

    #[test]
    fn session_secret_differs_from_the_token_secret() {
        let other = Token { secret: [1; 16], ..TOKEN };
        assert!(TOKEN.session_secret() != other.session_secret());
        assert_eq!(format!("{TOKEN:?} {:?}", TOKEN.session_secret()), "Token(..) Secret(..)");
    }
}
