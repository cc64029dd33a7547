//! Credentials of a process: its certificate and private key.
//!
//! Credentials are short-lived and renewed while the process runs. New links use the new ones.
//! Existing links stay; their hosts replace them before the old certificate expires. `Debug` output
//! never contains the key.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
#[cfg(feature = "cli")]
use rustls::{
    DigitallySignedStruct, DistinguishedName,
    client::danger::HandshakeSignatureValid,
    pki_types::UnixTime,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls::{RootCertStore, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "cli")]
use super::expiry::wait_until;
use super::expiry::{expiry, validity};
use crate::config::{CERTIFICATE_RENEW_FRACTION, CERTIFICATE_RENEWAL_BACKOFF, CERTIFICATE_SKEW};

/// ALPN protocol of links between hosts. It prevents a connection for one purpose from being used
/// for another.
pub(super) const HOST_ALPN: &[u8] = b"roadshow-host/1";

/// ALPN protocol of the token RPC.
pub(crate) const TOKEN_RPC_ALPN: &[u8] = b"roadshow-token-rpc/1";

/// Certificate and key of a process, and the certificate of its authority.
///
/// Clones share their state: renewing one renews all. The serialized form contains the key: send it
/// over a private socket only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "CredentialsDer", into = "CredentialsDer")]
pub struct Credentials {
    own: Arc<SwappableKey>,
    authority: Arc<CertificateDer<'static>>,
    host_server: Arc<ServerConfig>,
    host_client: Arc<ClientConfig>,
}

/// Serialized form of credentials, in DER.
#[derive(Clone, Serialize, Deserialize)]
struct CredentialsDer {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

/// Reason why bytes are no valid credentials.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The chain is not one certificate and that of its authority.
    #[error("a chain of {count} certificates does not lead from a process to its cluster's authority")]
    Chain {
        /// Number of certificates.
        count: usize,
    },
    /// The certificate does not match the key, or one of them is invalid.
    #[error("cannot use the certificate and the key: {0}")]
    Unusable(rustls::Error),
    /// The authority's certificate is invalid.
    #[error("cannot use the authority's certificate: {0}")]
    Authority(String),
    /// The new credentials belong to another cluster than the present ones.
    #[error("the new certificate is from another authority; a process cannot change its cluster")]
    OtherAuthority,
}

impl From<rustls::Error> for CredentialsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error)
    }
}

impl Credentials {
    /// Creates credentials from a chain of certificates, the process's own first and the
    /// authority's last, and the PKCS #8 key of the first one; all in DER.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if they do not belong together.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, CredentialsError> {
        let provider = Arc::new(ring::default_provider());
        let current = CurrentKey::new(CredentialsDer { chain, key }, &provider)?;
        let authority = current.authority();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let roots = Arc::new(roots);
        let own = Arc::new(SwappableKey(RwLock::new(Arc::new(current))));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            // There is only one authority, so the hint would help no client.
            .clear_root_hint_subjects()
            .build()
            .map_err(|error| CredentialsError::Authority(error.to_string()))?;
        let host_server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&own) as _);
        let mut host_client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::clone(&own) as _);
        host_client.alpn_protocols = vec![HOST_ALPN.to_vec()];
        // The preamble names the host already, and SNI would show it to eavesdroppers in the clear.
        host_client.enable_sni = false;
        // A resumed session would trust a certificate that may have expired since.
        host_client.resumption = Resumption::disabled();
        Ok(Self {
            own,
            authority: Arc::new(authority),
            host_server: Arc::new(for_protocol(host_server, HOST_ALPN)),
            host_client: Arc::new(host_client),
        })
    }

    /// Replaces certificate and key by those of `renewed`, for new connections.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::OtherAuthority`] if they belong to another cluster. The present ones are
    /// kept.
    pub fn renew(&self, renewed: &Self) -> Result<(), CredentialsError> {
        if renewed.authority != self.authority {
            return Err(CredentialsError::OtherAuthority);
        }
        // Replaces a whole `Arc`, so a poisoned lock still holds valid credentials, and a handshake
        // never sees the key of one certificate with another.
        let current = renewed.own.now();
        *self.own.0.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// Time until the next certificate should be requested: a third of the remaining validity.
    #[must_use]
    pub fn renew_after(&self) -> Duration {
        let current = self.own.now();
        let expires = current.certified.cert.first().and_then(|certificate| expiry(certificate));
        let left = expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
        // If the certificate has expired, request soon but rate-limited. If its validity is
        // unreadable, as usual.
        left.map_or(CERTIFICATE_RENEW_FRACTION, |left| {
            (left / 3).clamp(CERTIFICATE_RENEWAL_BACKOFF, CERTIFICATE_RENEW_FRACTION)
        })
    }

    /// Returns whether less than half of the certificate's validity has passed.
    ///
    /// A process with a fresh certificate rejoins the head without a new one. One with unreadable
    /// validity is not fresh.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(SystemTime::now())
    }

    fn is_fresh_at(&self, now: SystemTime) -> bool {
        let current = self.own.now();
        let Some(validity) = current.certified.cert.first().and_then(|certificate| validity(certificate))
        else {
            return false;
        };
        // The validity starts earlier than the issue, for machines whose clock is behind.
        let issued = validity.start + CERTIFICATE_SKEW;
        let half = validity.end.duration_since(issued).unwrap_or_default() / 2;
        now < issued + half
    }

    /// Returns the certificate of the cluster's authority, in DER.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// TLS configuration for accepting links: both sides present certificates.
    pub(super) fn host_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.host_server)
    }

    /// TLS configuration for dialling links.
    pub(super) fn host_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.host_client)
    }

    /// Client certificate resolver for a token RPC client that has a certificate already.
    pub(crate) fn client_cert_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.own) as _
    }

    /// Waits until the next certificate should be requested, by the wall clock: unlike a timer, it
    /// advances while the machine sleeps.
    #[cfg(feature = "cli")]
    pub(crate) async fn wait_for_renewal(&self) {
        wait_until(SystemTime::now() + self.renew_after()).await;
    }

    /// TLS configuration of the token RPC server. The client may have no certificate yet, or an
    /// expired one.
    #[cfg(feature = "cli")]
    pub(crate) fn token_rpc_server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add((*self.authority).clone()).expect("it is a root of these credentials' links, too");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .clear_root_hint_subjects()
            .allow_unauthenticated()
            .build()
            .expect("it verifies those of these credentials' links, too");
        let clients = Arc::new(AcceptExpired(clients));
        let token_rpc_server_config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has all that TLS 1.3 needs")
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&self.own) as _);
        Arc::new(for_protocol(token_rpc_server_config, TOKEN_RPC_ALPN))
    }
}

#[cfg(feature = "dashboard")]
impl Credentials {
    /// TLS configuration of a web server, whose clients have no certificate.
    pub(crate) fn web_server_config(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has all that TLS 1.3 needs")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.own) as _)
    }
}

fn for_protocol(mut config: ServerConfig, protocol: &[u8]) -> ServerConfig {
    // No tickets, no session cache: the certificate is verified on every connection.
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// Verifier that also accepts expired certificates: with the key they still prove an identity, and
/// a new certificate is all that a client can obtain by them.
#[cfg(feature = "cli")]
#[derive(Debug)]
struct AcceptExpired(Arc<dyn ClientCertVerifier>);

#[cfg(feature = "cli")]
impl ClientCertVerifier for AcceptExpired {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Verified as of the certificate's last valid second, so that every other check stays in
        // force.
        let end = expiry(certificate).and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        let while_valid = end.map_or(now, |end| now.min(UnixTime::since_unix_epoch(end)));
        self.0.verify_client_cert(certificate, intermediates, while_valid)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Certificate and key in use, replaced by a renewal.
struct SwappableKey(RwLock<Arc<CurrentKey>>);

struct CurrentKey {
    parts: CredentialsDer,
    certified: Arc<CertifiedKey>,
}

impl CurrentKey {
    fn new(parts: CredentialsDer, provider: &CryptoProvider) -> Result<Self, CredentialsError> {
        let count = parts.chain.len();
        // The authority's certificate must be included: it is the only root of the connections.
        if count < 2 {
            return Err(CredentialsError::Chain { count });
        }
        let chain = parts.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(parts.key.clone()));
        let certified = Arc::new(CertifiedKey::from_der(chain, key, provider)?);
        Ok(Self { parts, certified })
    }

    fn authority(&self) -> CertificateDer<'static> {
        self.certified.cert.last().cloned().expect("a chain has two certificates at least")
    }
}

impl SwappableKey {
    fn now(&self) -> Arc<CurrentKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for SwappableKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().certified))
    }
}

impl ResolvesClientCert for SwappableKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl TryFrom<CredentialsDer> for Credentials {
    type Error = CredentialsError;

    fn try_from(CredentialsDer { chain, key }: CredentialsDer) -> Result<Self, CredentialsError> {
        Self::new(chain, key)
    }
}

impl From<Credentials> for CredentialsDer {
    fn from(credentials: Credentials) -> Self {
        credentials.own.now().parts.clone()
    }
}

impl fmt::Debug for SwappableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwappableKey(..)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
