//! A process's request for a certificate: its key, which stays, and what is sent to the authority.

use std::fmt;

use rcgen::{CertificateParams, KeyPair};
use thiserror::Error;

use crate::transport::{Credentials, CredentialsError};

/// A new key, and the request for a certificate to it.
pub(crate) struct CertificateRequest {
    key: KeyPair,
    csr: Vec<u8>,
}

/// No key or no request could be made.
#[derive(Debug, Error)]
#[error("cannot make a key: {0}")]
pub struct RequestError(rcgen::Error);

impl From<rcgen::Error> for RequestError {
    fn from(error: rcgen::Error) -> Self {
        Self(error)
    }
}

impl CertificateRequest {
    /// Makes a key, and a request that is signed by it.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the operating system gives no random numbers.
    pub(crate) fn new() -> Result<Self, RequestError> {
        let key = KeyPair::generate()?;
        // It says nothing but the key: what the certificate is to say is claimed beside it.
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The request, as PKCS #10 in DER.
    #[must_use]
    pub(crate) fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The credentials that the authority's answer makes of the key.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if the answer is not for this key.
    pub(crate) fn credentials(self, chain: Vec<Vec<u8>>) -> Result<Credentials, CredentialsError> {
        Credentials::new(chain, self.key.serialize_der())
    }

    /// Renews credentials by the authority's answer.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if the answer is not for this key, or from another authority than before.
    #[cfg(test)]
    pub(crate) fn renew(
        self,
        credentials: &Credentials,
        chain: Vec<Vec<u8>>,
    ) -> Result<(), CredentialsError> {
        credentials.renew(&self.credentials(chain)?)
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateRequest(..)")
    }
}
