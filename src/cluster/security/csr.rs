//! Certificate signing request of a process; the private key stays in the process.

use std::fmt;

use rcgen::{CertificateParams, KeyPair};
use thiserror::Error;

use crate::transport::{Credentials, CredentialsError};

/// New key pair and the certificate signing request for it.
pub(crate) struct CertificateRequest {
    key: KeyPair,
    csr: Vec<u8>,
}

/// Failure to generate the key pair or the request.
#[derive(Debug, Error)]
#[error("cannot make a key: {0}")]
pub struct RequestError(rcgen::Error);

impl From<rcgen::Error> for RequestError {
    fn from(error: rcgen::Error) -> Self {
        Self(error)
    }
}

impl CertificateRequest {
    /// Generates a key pair and a request signed with it.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the operating system has no random numbers.
    pub(crate) fn new() -> Result<Self, RequestError> {
        let key = KeyPair::generate()?;
        // The request carries the key alone. The claims travel beside it, because the authority must check them
        // against the token's rights before it signs.
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// PKCS #10 request in DER.
    #[must_use]
    pub(crate) fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Credentials of this key and the certificate chain that the authority issued.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if the chain is not for this key.
    pub(crate) fn credentials(self, chain: Vec<Vec<u8>>) -> Result<Credentials, CredentialsError> {
        Credentials::new(chain, self.key.serialize_der())
    }

    /// Replaces the certificate of existing credentials by the chain that the authority issued.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if the chain is not for this key, or comes from another authority.
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
