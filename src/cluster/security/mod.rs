//! Who belongs to a cluster, and how that is shown.
//!
//! A cluster has one [`CertificateAuthority`], which its head keeps. Whoever has the cluster's [`Token`] can tell the
//! authority's key from any other, and can prove that it was let in; it gets a certificate for its hosts
//! ([`Claims`]) on a [`CertificateRequest`], whose key never leaves the process. Knows no connection.

pub(super) mod claims;
mod csr;
pub(super) mod enrol;
pub(super) mod token;
pub(super) mod token_rpc;

pub(super) use claims::{Claims, ONE_JOB, job_name};
pub(super) use csr::{CertificateRequest, RequestError};
pub(super) use token::Token;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// What stands for an authority: the SHA-256 digest of its public key, as `SubjectPublicKeyInfo` in DER.
pub(in crate::cluster) type KeyDigest = [u8; 32];

pub(super) fn digest_of_key(subject_public_key_info: &[u8]) -> KeyDigest {
    Sha256::digest(subject_public_key_info).into()
}

/// The digest of the key in an authority's certificate; `None` if it is no such certificate.
pub(in crate::cluster) fn digest_of_authority(certificate: &CertificateDer<'_>) -> Option<KeyDigest> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    // An anchor has what is in the sequence, without its head.
    let inner = &roots.roots.first()?.subject_public_key_info;
    Some(digest_of_key(&sequence(inner)))
}

/// A DER sequence of that content.
pub(super) fn sequence(content: &[u8]) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let length = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![0x30];
    match content.len() {
        short @ 0..0x80 => der.push(short as u8),
        _ => {
            der.push(0x80 | length.len() as u8);
            der.extend_from_slice(length);
        }
    }
    der.extend_from_slice(content);
    der
}
