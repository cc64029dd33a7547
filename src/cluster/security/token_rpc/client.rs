//! Who goes to a desk.

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
    AuthReply, AuthRequest, CLIENT, Enrolled, Refusal, Returned, SERVER, TokenReply, TokenRequest, VERSION,
    binding,
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

/// A connection to a desk on which both sides have proved themselves.
pub struct TokenRpcClient {
    stream: TlsStream<TcpStream>,
}

/// What a process has once it is enrolled.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment {
    /// What it shows to others.
    pub credentials: Credentials,
    /// The head, in its present life; its address is that of the desk.
    pub head: HostUid,
    /// What the cluster is called.
    pub cluster: String,
}

impl TokenRpcClient {
    /// Goes to the first of several addresses at which there is such a desk, perhaps with a certificate to show;
    /// gives which one it is.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError::NoneOf`] if there is none; the one error if there is one address.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all connections.
    pub(crate) async fn connect_any(
        who: Option<&Credentials>,
        addresses: &[SocketAddr],
        desk: Endpoint,
        token: &Token,
    ) -> Result<(SocketAddr, Self), TokenRpcError> {
        let found = first_to_answer(addresses, |address| Self::connect_as(who, address, desk, token)).await;
        found.map_err(|mut attempts| match attempts.len() {
            1 => attempts.remove(0),
            _ => TokenRpcError::NoneOf { attempts },
        })
    }

    /// Goes to a desk of the token's cluster, perhaps with a certificate of the cluster to show.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if nobody is there, or is of another cluster, or the token's secret is not the cluster's, or
    /// the certificate is not taken.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn connect_as(
        who: Option<&Credentials>,
        address: SocketAddr,
        desk: Endpoint,
        token: &Token,
    ) -> Result<Self, TokenRpcError> {
        let role = desk.role();
        let failed = |error| TokenRpcError::Connect { role, address, error: explained(error) };
        let late = |within| TokenRpcError::TimedOut { role, address, within };
        // A member that comes back dials anew before the kernel would send its lost SYN again.
        let patience = if who.is_some() { REJOIN_BACKOFF_MAX } else { CONNECT_TIMEOUT };
        let connecting = timeout(patience, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_| late(patience))?.map_err(failed)?;
        let opening = timeout(HANDSHAKE_TIMEOUT, Self::open(who, stream, address, desk, token)).await;
        opening.map_err(|_| late(HANDSHAKE_TIMEOUT))?
    }

    async fn open(
        who: Option<&Credentials>,
        mut stream: TcpStream,
        address: SocketAddr,
        desk: Endpoint,
        token: &Token,
    ) -> Result<Self, TokenRpcError> {
        let role = desk.role();
        let failed = |error| TokenRpcError::Connect { role, address, error };
        stream.set_nodelay(true).map_err(failed)?;
        stream.write_all(&desk.route().preamble()).await.map_err(failed)?;
        let shown = who.map(Credentials::client_cert_resolver);
        let config = config(*token.authority(), shown).map_err(|error| failed(io::Error::other(error)))?;
        let name = ServerName::try_from(role.name()).map_err(|error| failed(io::Error::other(error)))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let mut stream = connected.map_err(|error| connect_error(desk, address, error))?;
        let binding =
            binding(stream.get_ref().1).map_err(|error| TokenRpcError::Broken(error.to_string()))?;
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
            Some(AuthReply::Refused(Refusal::Secret)) => Err(TokenRpcError::WrongSecret),
            Some(AuthReply::Refused(Refusal::Version { ours: theirs })) => {
                Err(TokenRpcError::Version { theirs, ours: VERSION })
            }
            Some(AuthReply::Refused(Refusal::Busy)) => Err(TokenRpcError::Busy),
            None => Err(TokenRpcError::ConnectionClosed { role, address }),
        }
    }

    /// Has this process certified as what it claims to be: an agent or a driver.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the desk does not do that, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client is of no use after the future was dropped.
    pub(crate) async fn enrol(&mut self, claims: &Claims) -> Result<Enrolment, TokenRpcError> {
        let request = CertificateRequest::new()?;
        let ask: TokenRequest<()> =
            TokenRequest::Enrol { csr: request.csr().to_vec(), claims: claims.clone() };
        match self.exchange::<(), ()>(&ask).await? {
            TokenReply::Enrolled(Enrolled { chain, head, cluster }) => {
                Ok(Enrolment { credentials: request.credentials(chain)?, head, cluster })
            }
            TokenReply::Returned(_) | TokenReply::Stale | TokenReply::Service(()) => Err(unexpected_reply()),
            TokenReply::Refused { text } => Err(TokenRpcError::Refused { text }),
        }
    }

    /// Has this process taken back as what it claims to be, with the certificate that it has shown. Nothing is
    /// signed for that. `None` if that certificate does not do.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the desk does not do that, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client is of no use after the future was dropped.
    pub(crate) async fn rejoin(&mut self, claims: &Claims) -> Result<Option<Returned>, TokenRpcError> {
        let ask: TokenRequest<()> = TokenRequest::Return { claims: claims.clone() };
        match self.exchange::<(), ()>(&ask).await? {
            TokenReply::Returned(returned) => Ok(Some(returned)),
            TokenReply::Stale => Ok(None),
            TokenReply::Enrolled(_) | TokenReply::Service(()) => Err(unexpected_reply()),
            TokenReply::Refused { text } => Err(TokenRpcError::Refused { text }),
        }
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`TokenRpcError`] if the desk does not understand, or the connection breaks.
    ///
    /// # Cancel safety
    ///
    /// The client is of no use after the future was dropped. What was asked for may be done all the same.
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
        ask: &TokenRequest<Q>,
    ) -> Result<TokenReply<A>, TokenRpcError> {
        frames::write(&mut self.stream, ask, TOKEN_RPC_REQUEST_BYTES_MAX).await?;
        let answer = frames::read(&mut self.stream, TOKEN_RPC_REPLY_BYTES_MAX).await?;
        answer.ok_or_else(|| TokenRpcError::Broken("it was closed before the reply".to_owned()))
    }
}

fn unexpected_reply() -> TokenRpcError {
    TokenRpcError::Broken("the reply is to something else".to_owned())
}

/// Why there is no TLS with a desk.
fn connect_error(desk: Endpoint, address: SocketAddr, error: io::Error) -> TokenRpcError {
    let role = desk.role();
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

pub(in crate::cluster) fn config(
    authority: KeyDigest,
    shown: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned { authority, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned);
    let mut config = match shown {
        Some(shown) => config.with_client_cert_resolver(shown),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![TOKEN_RPC_ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Trusts what the authority with this key has signed, and nothing else.
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
                // What only this verifier says, so that it can be told apart.
                TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
            )?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        // From here on it is what any client does that has the authority's certificate.
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
        f.debug_struct("DeskClient").field("at", &self.stream.get_ref().0.peer_addr()).finish()
    }
}
