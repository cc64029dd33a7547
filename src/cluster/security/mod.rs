//! Identity and authentication of a cluster's processes: the token, certificates and enrolment.
//!
//! A cluster has one `CertificateAuthority`, which its head stores. The cluster's [`Token`] has two parts: the digest
//! of the authority's key authenticates the head to its holder, and a secret authenticates the holder to the head.
//! A process sends a [`CertificateRequest`] and its [`Claims`], and receives a certificate for its hosts.
//! Its private key never leaves the process. This module opens no connections except in [`enrol`] and [`token_rpc`].

pub(super) mod claims;
mod csr;
pub(super) mod enrol;
pub(super) mod token;
pub(super) mod token_rpc;

pub(super) use claims::{Claims, ONE_JOB, job_name};
pub(super) use csr::CertificateRequest;
pub use csr::RequestError;
pub(super) use token::Token;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// SHA-256 digest of an authority's public key, encoded as `SubjectPublicKeyInfo` in DER.
pub(in crate::cluster) type KeyDigest = [u8; 32];

pub(super) fn digest_of_key(subject_public_key_info: &[u8]) -> KeyDigest {
    Sha256::digest(subject_public_key_info).into()
}

/// Digest of the key in an authority's certificate; `None` if the certificate cannot be a trust anchor.
pub(in crate::cluster) fn digest_of_authority(certificate: &CertificateDer<'_>) -> Option<KeyDigest> {
    // rustls' own certificate parser, so that what is pinned and what is verified later cannot differ.
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    // The trust anchor keeps only the content of the SEQUENCE. The token's digest covers the whole
    // `SubjectPublicKeyInfo`, so tag and length are put back before hashing.
    let inner = &roots.roots.first()?.subject_public_key_info;
    Some(digest_of_key(&sequence(inner)))
}

/// DER SEQUENCE with this content.
pub(super) fn sequence(content: &[u8]) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let length = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![0x30];
    match content.len() {
        // DER demands the shortest form: one byte below 128, otherwise a count of length bytes first.
        short @ 0..0x80 => der.push(short as u8),
        _ => {
            der.push(0x80 | length.len() as u8);
            der.extend_from_slice(length);
        }
    }
    der.extend_from_slice(content);
    der
}
