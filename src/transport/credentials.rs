//! What a process shows to prove who it is: its certificate, and the key that it is for.
//!
//! They are short-lived and renewed while the process runs: links that are made from then on use the new
//! ones. Those that are up stay; their hosts make them anew before the old ones end. The key is shown to nobody; `Debug` has none of it.

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

/// What a link of two hosts is for, in the handshake of TLS: bytes for one purpose are none for another.
pub(super) const HOST_ALPN: &[u8] = b"roadshow-host/1";

/// The same for a desk.
pub(crate) const TOKEN_RPC_ALPN: &[u8] = b"roadshow-desk/1";

/// The certificate of a process, its key, and the authority that it has them from. Clones are the same
/// credentials: to renew one of them renews all.
///
/// Serialized they hold the key: they may travel over a private socket, and nowhere else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Credentials {
    own: Arc<SwappableKey>,
    authority: Arc<CertificateDer<'static>>,
    host_server: Arc<ServerConfig>,
    host_client: Arc<ClientConfig>,
}

/// Credentials as they travel, in DER.
#[derive(Clone, Serialize, Deserialize)]
struct Parts {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

/// These bytes are no credentials.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A chain is a certificate and that of its authority.
    #[error("a chain of {count} certificates is no chain from a process to its cluster's authority")]
    Chain {
        /// How many there are.
        count: usize,
    },
    /// The certificate does not go with the key, or either cannot be read.
    #[error("the certificate and the key are of no use together: {0}")]
    Unusable(rustls::Error),
    /// The authority cannot be one.
    #[error("the authority's certificate is of no use: {0}")]
    Authority(String),
    /// New credentials are from another cluster than those that they are to stand in for.
    #[error("the new certificate is from another authority; a process stays in its cluster for life")]
    OtherAuthority,
}

impl From<rustls::Error> for CredentialsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error)
    }
}

impl Credentials {
    /// Credentials of a chain of certificates, the process's own first and the authority's last, and of the
    /// key to the first in PKCS #8; all in DER.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if they do not go together.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, CredentialsError> {
        let provider = Arc::new(ring::default_provider());
        let held = CurrentKey::new(Parts { chain, key }, &provider)?;
        let authority = held.authority();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let roots = Arc::new(roots);
        let own = Arc::new(SwappableKey(RwLock::new(Arc::new(held))));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
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
        // The preamble says whom the connection is for; nobody else need read it.
        host_client.enable_sni = false;
        // A resumed connection would be taken for what a certificate said that may have expired since.
        host_client.resumption = Resumption::disabled();
        Ok(Self {
            own,
            authority: Arc::new(authority),
            host_server: Arc::new(for_protocol(host_server, HOST_ALPN)),
            host_client: Arc::new(host_client),
        })
    }

    /// Takes up the certificate and key of others, for the connections that are made from now on.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::OtherAuthority`] if they are of another cluster. The old ones stay then.
    pub fn renew(&self, renewed: &Self) -> Result<(), CredentialsError> {
        if renewed.authority != self.authority {
            return Err(CredentialsError::OtherAuthority);
        }
        let held = renewed.own.now();
        *self.own.0.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    /// How long it is until the next certificate is to be asked for: a third of the time that the present one
    /// is still valid.
    #[must_use]
    pub fn renew_after(&self) -> Duration {
        let held = self.own.now();
        let expires = held.certified.cert.first().and_then(|certificate| expiry(certificate));
        let left = expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
        // What is behind its end, or cannot be read, is asked for as soon as is no burden, or as usual.
        left.map_or(CERTIFICATE_RENEW_FRACTION, |left| {
            (left / 3).clamp(CERTIFICATE_RENEWAL_BACKOFF, CERTIFICATE_RENEW_FRACTION)
        })
    }

    /// Whether less than half of the certificate's time has passed: such a one is not asked for anew when its
    /// process comes back to the head.
    ///
    /// One whose time cannot be read is not fresh.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(SystemTime::now())
    }

    fn is_fresh_at(&self, now: SystemTime) -> bool {
        let held = self.own.now();
        let Some(validity) = held.certified.cert.first().and_then(|certificate| validity(certificate)) else {
            return false;
        };
        // Before its issue it was valid for clocks that are behind.
        let issued = validity.start + CERTIFICATE_SKEW;
        let half = validity.end.duration_since(issued).unwrap_or_default() / 2;
        now < issued + half
    }

    /// The certificate of the cluster's authority, in DER.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// For a host that accepts: both sides show certificates.
    pub(super) fn host_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.host_server)
    }

    /// For a host that dials.
    pub(super) fn host_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.host_client)
    }

    /// For whoever goes to a desk as who he is already.
    pub(crate) fn client_cert_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.own) as _
    }

    /// Waits until the next certificate is to be asked for, by the clock on the wall, which goes on while the
    /// machine sleeps.
    #[cfg(feature = "cli")]
    pub(crate) async fn wait_for_renewal(&self) {
        wait_until(SystemTime::now() + self.renew_after()).await;
    }

    /// For a desk: it shows a certificate, and who comes may have none yet, or one that has expired.
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

fn for_protocol(mut config: ServerConfig, protocol: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// Takes certificates that were valid once, too: with the key they still prove who somebody is, and nothing
/// but a new one is to be had for them.
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

/// What a process shows at present.
struct SwappableKey(RwLock<Arc<CurrentKey>>);

struct CurrentKey {
    parts: Parts,
    certified: Arc<CertifiedKey>,
}

impl CurrentKey {
    fn new(parts: Parts, provider: &CryptoProvider) -> Result<Self, CredentialsError> {
        let count = parts.chain.len();
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

impl TryFrom<Parts> for Credentials {
    type Error = CredentialsError;

    fn try_from(Parts { chain, key }: Parts) -> Result<Self, CredentialsError> {
        Self::new(chain, key)
    }
}

impl From<Credentials> for Parts {
    fn from(credentials: Credentials) -> Self {
        credentials.own.now().parts.clone()
    }
}

impl fmt::Debug for SwappableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own(..)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
