//! Client of the token RPC.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore, SignatureScheme,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::message::{
    AuthRefusal, AuthReply, AuthRequest, CLIENT, Enrolled, Returned, SERVER, TokenReply, TokenRequest,
    VERSION, binding,
};
use super::{Endpoint, TokenRpcError, frames};
use crate::cluster::dial::first_to_answer;
use crate::cluster::security::{CertificateRequest, Claims, KeyDigest, Token, digest_of_authority};
use crate::config::{
    CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, REJOIN_BACKOFF_MAX, TOKEN_RPC_REPLY_BYTES_MAX,
    TOKEN_RPC_REQUEST_BYTES_MAX, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX,
};
use crate::id::HostUid;
use crate::transport::{Credentials, TOKEN_RPC_ALPN, explain, explained};

/// Connection of the token RPC on which both sides are authenticated.
pub struct TokenRpcClient {
    stream: TlsStream<TcpStream>,
}

/// Result of a process's enrolment.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment {
    /// Credentials of the process's hosts.
    pub credentials: Credentials,
    /// Present incarnation of the head; its address is the dialled one.
    pub head: HostUid,
    /// Name of the cluster.
    pub cluster: String,
}

impl TokenRpcClient {
    /// Connects to the first address that answers and returns it with the client. A member presents its
    /// `credentials` in the TLS handshake.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError::NoneOf`] if every address failed; with one address, its error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all connections.
    pub(crate) async fn connect_any(
        credentials: Option<&Credentials>,
        addresses: &[SocketAddr],
        endpoint: Endpoint,
        token: &Token,
    ) -> Result<(SocketAddr, Self), TokenRpcError> {
        let found =
            first_to_answer(addresses, |address| Self::connect_as(credentials, address, endpoint, token))
                .await;
        found.map_err(|mut attempts| match attempts.len() {
            1 => attempts.remove(0),
            _ => TokenRpcError::NoneOf { attempts },
        })
    }

    /// Connects to one address of the token's cluster. A member presents its `credentials` in the TLS handshake.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if no server answers, it belongs to another cluster, the token's secret is not the
    /// cluster's, or the server rejects the certificate.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn connect_as(
        credentials: Option<&Credentials>,
        address: SocketAddr,
        endpoint: Endpoint,
        token: &Token,
    ) -> Result<Self, TokenRpcError> {
        let role = endpoint.role();
        let failed = |error| TokenRpcError::Connect { role, address, error: explained(error) };
        let timed_out = |within| TokenRpcError::TimedOut { role, address, within };
        // The kernel repeats a lost SYN after 1 s, then after 2 s and 4 s more. A rejoining member gives up after
        // a second and dials again, so these gaps do not add up to more than its lease.
        let connect_timeout = if credentials.is_some() { REJOIN_BACKOFF_MAX } else { CONNECT_TIMEOUT };
        let connecting = timeout(connect_timeout, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_| timed_out(connect_timeout))?.map_err(failed)?;
        let opening =
            timeout(HANDSHAKE_TIMEOUT, Self::open(credentials, stream, address, endpoint, token)).await;
        opening.map_err(|_| timed_out(HANDSHAKE_TIMEOUT))?
    }

    async fn open(
        credentials: Option<&Credentials>,
        mut stream: TcpStream,
        address: SocketAddr,
        endpoint: Endpoint,
        token: &Token,
    ) -> Result<Self, TokenRpcError> {
        let role = endpoint.role();
        let failed = |error| TokenRpcError::Connect { role, address, error };
        stream.set_nodelay(true).map_err(failed)?;
        stream.write_all(&endpoint.route().preamble()).await.map_err(failed)?;
        let cert_resolver = credentials.map(Credentials::client_cert_resolver);
        let config =
            config(*token.authority(), cert_resolver).map_err(|error| failed(io::Error::other(error)))?;
        // The certificate is issued for the role, not for an address: any address that the user gives for the
        // head is as good as another.
        let name = ServerName::try_from(role.name()).map_err(|error| failed(io::Error::other(error)))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let mut stream = connected.map_err(|error| connect_error(endpoint, address, error))?;
        let binding =
            binding(stream.get_ref().1).map_err(|error| TokenRpcError::Broken(error.to_string()))?;
        // The client proves itself first: a server shows no proof, and does no work, for a peer without the token.
        let opening = AuthRequest { version: VERSION, proof: token.prove(CLIENT, &binding).to_vec() };
        frames::write(&mut stream, &opening, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX).await?;
        match frames::read(&mut stream, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX).await? {
            Some(AuthReply::Welcome { proof }) if token.verify(SERVER, &binding, &proof) => {
                Ok(Self { stream })
            }
            Some(AuthReply::Welcome { .. }) => {
                let why = "it does not know the token's secret".to_owned();
                Err(TokenRpcError::NotCertified { role, address, why })
            }
            Some(AuthReply::Refused(AuthRefusal::Secret)) => Err(TokenRpcError::WrongSecret),
            Some(AuthReply::Refused(AuthRefusal::Version { ours: theirs })) => {
                Err(TokenRpcError::Version { theirs, ours: VERSION })
            }
            Some(AuthReply::Refused(AuthRefusal::Busy)) => Err(TokenRpcError::Busy),
            None => Err(TokenRpcError::ConnectionClosed { role, address }),
        }
    }

    /// Requests a certificate for what this process claims to be: an agent or a driver.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the server rejects the request, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client cannot be used after the future was dropped.
    pub(crate) async fn enrol(&mut self, claims: &Claims) -> Result<Enrolment, TokenRpcError> {
        let certificate = CertificateRequest::new()?;
        let request: TokenRequest<()> =
            TokenRequest::Enrol { csr: certificate.csr().to_vec(), claims: claims.clone() };
        match self.exchange::<(), ()>(&request).await? {
            TokenReply::Enrolled(Enrolled { chain, head, cluster }) => {
                Ok(Enrolment { credentials: certificate.credentials(chain)?, head, cluster })
            }
            TokenReply::Returned(_) | TokenReply::Stale | TokenReply::Service(()) => Err(unexpected_reply()),
            TokenReply::Refused { text } => Err(TokenRpcError::Refused { text }),
        }
    }

    /// Rejoins as what this process claims to be, with the certificate presented in the handshake. The head signs
    /// nothing. `None` if the head wants the process to enrol again.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the server rejects the request, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client cannot be used after the future was dropped.
    pub(crate) async fn rejoin(&mut self, claims: &Claims) -> Result<Option<Returned>, TokenRpcError> {
        let request: TokenRequest<()> = TokenRequest::Return { claims: claims.clone() };
        match self.exchange::<(), ()>(&request).await? {
            TokenReply::Returned(returned) => Ok(Some(returned)),
            TokenReply::Stale => Ok(None),
            TokenReply::Enrolled(_) | TokenReply::Service(()) => Err(unexpected_reply()),
            TokenReply::Refused { text } => Err(TokenRpcError::Refused { text }),
        }
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the server does not know the request, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client cannot be used after the future was dropped. The request may be carried out nevertheless.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
    ) -> Result<A, TokenRpcError> {
        match self.exchange(&TokenRequest::Service(request)).await? {
            TokenReply::Service(reply) => Ok(reply),
            TokenReply::Enrolled(_) | TokenReply::Returned(_) | TokenReply::Stale => Err(unexpected_reply()),
            TokenReply::Refused { text } => Err(TokenRpcError::Refused { text }),
        }
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &TokenRequest<Q>,
    ) -> Result<TokenReply<A>, TokenRpcError> {
        frames::write(&mut self.stream, request, TOKEN_RPC_REQUEST_BYTES_MAX).await?;
        let reply = frames::read(&mut self.stream, TOKEN_RPC_REPLY_BYTES_MAX).await?;
        reply.ok_or_else(|| TokenRpcError::Broken("the server closed it before the reply".to_owned()))
    }
}

fn unexpected_reply() -> TokenRpcError {
    TokenRpcError::Broken("the reply does not match the request".to_owned())
}

/// Classifies the failure of a TLS handshake by blame: network, wrong cluster, or wrong certificate.
fn connect_error(endpoint: Endpoint, address: SocketAddr, error: io::Error) -> TokenRpcError {
    let role = endpoint.role();
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match (tls, error.kind()) {
        (Some(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)), _) => {
            TokenRpcError::OtherCluster { role, address }
        }
        (Some(TlsError::InvalidCertificate(CertificateError::Other(OtherError(why)))), _) => {
            TokenRpcError::NotCertified { role, address, why: why.to_string() }
        }
        (Some(TlsError::InvalidCertificate(_)), _) => {
            TokenRpcError::NotCertified { role, address, why: explain(error).to_string() }
        }
        (None, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            TokenRpcError::ConnectionClosed { role, address }
        }
        _ => TokenRpcError::Connect { role, address, error: explain(error) },
    }
}

/// TLS configuration of one connection: TLS 1.3 only, the server pinned by the authority's key digest.
pub(in crate::cluster) fn config(
    authority: KeyDigest,
    cert_resolver: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned { authority, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned);
    let mut config = match cert_resolver {
        Some(resolver) => config.with_client_cert_resolver(resolver),
        None => config.with_no_client_auth(),
    };
    // ALPN separates the token RPC from a host's session behind the same port.
    config.alpn_protocols = vec![TOKEN_RPC_ALPN.to_vec()];
    // The preamble has chosen the server; the name is that of a role and would mean nothing to a network.
    config.enable_sni = false;
    // The configuration serves one connection, so a stored session would never be resumed.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Certificate verifier that trusts the one authority whose key has this digest.
#[derive(Debug)]
struct Pinned {
    authority: KeyDigest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let authority =
            intermediates.iter().find(|it| digest_of_authority(it) == Some(self.authority)).ok_or(
                // No other step yields this error, so `connect_error` can recognise a server of another cluster.
                TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
            )?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        // With the pinned authority as the only root, the rest is the standard chain verification of WebPKI.
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| {
                TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
            })?
            .verify_server_cert(certificate, &[], name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for TokenRpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRpcClient").field("at", &self.stream.get_ref().0.peer_addr()).finish()
    }
}
