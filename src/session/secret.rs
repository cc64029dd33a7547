//! Shared secret of a cluster, and proofs of its possession.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Secret of the cluster, which authenticates its hosts.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Creates a secret from these bytes, which must be random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Bytes of the secret, for a process that is started as part of the cluster.
    #[must_use]
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Computes the proof of one side over the transcript.
    pub(super) fn prove(&self, side: ProvingSide, transcript: &[u8]) -> [u8; 32] {
        self.mac(side, transcript).finalize().into_bytes().into()
    }

    /// Verifies a proof in constant time.
    pub(super) fn verify(&self, side: ProvingSide, transcript: &[u8], proof: &[u8; 32]) -> bool {
        self.mac(side, transcript).verify_slice(proof).is_ok()
    }

    fn mac(&self, side: ProvingSide, transcript: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.as_bytes()).expect("HMAC takes keys of every length");
        mac.update(side.label());
        mac.update(transcript);
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `HandshakeConfig` derives `Debug`: the secret must not reach a log through it.
        f.write_str("Secret(..)")
    }
}

/// Proving side. Each side has its own label, so that a proof cannot be reflected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProvingSide {
    Initiator,
    Acceptor,
}

impl ProvingSide {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Initiator => b"roadshow 2 initiator",
            Self::Acceptor => b"roadshow 2 acceptor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret::from_bytes([7; 32]);

    #[test]
    fn proof_holds_for_its_side_transcript_and_secret_alone() {
        let proof = SECRET.prove(ProvingSide::Initiator, b"transmitted");

        assert!(SECRET.verify(ProvingSide::Initiator, b"transmitted", &proof));
        assert!(!SECRET.verify(ProvingSide::Acceptor, b"transmitted", &proof));
        assert!(!SECRET.verify(ProvingSide::Initiator, b"sane", &proof));
        assert!(!Secret::from_bytes([8; 32]).verify(ProvingSide::Initiator, b"transmitted", &proof));
    }

    #[test]
    fn secret_does_not_show_in_debug() {
        assert_eq!(format!("{SECRET:?}"), "Secret(..)");
    }
}
