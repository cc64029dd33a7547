//! Server of the token RPC: authenticates clients by the cluster token, and answers their requests.
//!
//! ```text
//!  connection ─▶ TLS ─▶ AuthRequest ─▶ slot free? ─▶ Welcome ─▶ request, reply, request, reply ...
//!                 └─────────┴──────────────┴─▶ Refused, closed      └─▶ closed after an idle timeout
//!  ◀── unauthenticated: 5 s, a few bytes ──▶◀────────── authenticated: holds a slot ──────────▶
//! ```

#[cfg(all(test, feature = "cli"))]
mod tests;

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::net;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::cluster::security::token_rpc::frames;
use crate::cluster::security::token_rpc::frames::TokenRpcFrameError;
use crate::cluster::security::token_rpc::message::{
    AuthRefusal, AuthReply, AuthRequest, CLIENT, Enrolled, Returned, SERVER, TokenReply, TokenRequest,
    VERSION, binding,
};
use crate::cluster::security::{Claims, Token};
use crate::config::{
    HANDSHAKE_TIMEOUT, HANDSHAKES_OPEN_MAX, TOKEN_RPC_CONNECTIONS_MAX, TOKEN_RPC_IDLE_TIMEOUT,
    TOKEN_RPC_REPLY_BYTES_MAX, TOKEN_RPC_REQUEST_BYTES_MAX, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX,
};
use crate::host::unauthenticated::{RejectionLog, UnauthenticatedConnections};
use crate::transport::{Certificate, Credentials, explain, linger};

/// Service behind the token RPC, for clients that have proved that they know the token.
pub(crate) trait TokenService: Send + Sync + 'static {
    /// Request of the service.
    type Request: DeserializeOwned + Send;
    /// Reply of the service.
    type Reply: Serialize + Send + Sync;

    /// Answers a request. It runs to its end even if the client has disconnected, unless the server stops.
    fn reply(&self, request: Self::Request) -> impl Future<Output = Self::Reply> + Send;

    /// Certifies a process that claims to be an agent or a driver, or returns the reason and the next step. The
    /// client may have presented a certificate that it has already.
    ///
    /// The service must check that no other process owns the claimed hosts.
    fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        presented: Option<&Certificate>,
    ) -> impl Future<Output = Result<Enrolled, String>> + Send {
        drop((csr, claims, presented));
        ready(Err(NO_HEAD.to_owned()))
    }

    /// Readmits an agent or a driver by a valid certificate for its claims, or returns the reason and the next step.
    ///
    /// The service must check that no other process owns the claimed hosts.
    fn readmit(
        &self,
        claims: Claims,
        presented: &Certificate,
    ) -> impl Future<Output = Result<Returned, String>> + Send {
        drop((claims, presented));
        ready(Err(NO_HEAD.to_owned()))
    }
}

const NO_HEAD: &str = "this address is not the head's, and only a head enrols; use the head's address";

/// Server of the token RPC. It serves many connections concurrently, each one request after the other.
pub(crate) struct TokenRpcServer<S> {
    service: S,
    tls: TlsAcceptor,
    token: Token,
    connection_slots: Arc<Semaphore>,
    refusals: RejectionLog,
}

/// Reason that a connection is rejected.
#[derive(Debug, Error)]
enum RefusalReason {
    #[error("{0}")]
    Tls(io::Error),
    #[error(transparent)]
    Binding(#[from] rustls::Error),
    #[error(transparent)]
    Frame(#[from] TokenRpcFrameError),
    #[error("a client of the token RPC disconnected before it authenticated")]
    Left,
    #[error("a client of the token RPC has another secret than the cluster's")]
    Secret,
    #[error("a client of the token RPC speaks version {theirs} of its protocol")]
    Version { theirs: u16 },
    #[error("the token RPC serves {TOKEN_RPC_CONNECTIONS_MAX} connections already")]
    Busy,
    #[error("a client of the token RPC did not authenticate in time")]
    TimedOut,
}

impl<S: TokenService> TokenRpcServer<S> {
    /// Creates a server that presents these credentials, and serves clients with that token.
    #[must_use]
    pub(crate) fn new(credentials: &Credentials, token: Token, service: S) -> Arc<Self> {
        Arc::new(Self {
            service,
            tls: credentials.token_rpc_server_config().into(),
            token,
            connection_slots: Arc::new(Semaphore::new(TOKEN_RPC_CONNECTIONS_MAX)),
            refusals: RejectionLog::default(),
        })
    }

    /// Serves the connections of a queue, behind their preambles, until the queue closes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all connections.
    pub(crate) async fn run(self: Arc<Self>, mut incoming: mpsc::Receiver<net::TcpStream>) {
        let mut unauthenticated = UnauthenticatedConnections::default();
        // Authenticated connections run in tasks of their own, which must end with this future.
        let closing = CancellationToken::new();
        let _close_on_drop = closing.clone().drop_guard();
        while let Some(stream) = incoming.recv().await {
            // Without an address, such as of a peer that has closed, the connection counts for no source.
            let source = stream.peer_addr().ok().map(|address| address.ip());
            let connection = Arc::clone(&self).handle_connection(stream, closing.clone());
            if let Err(overload) = unauthenticated.spawn(source, HANDSHAKES_OPEN_MAX, connection) {
                self.refusals.record(&overload);
            }
        }
    }

    async fn handle_connection(self: Arc<Self>, stream: net::TcpStream, closing: CancellationToken) {
        let authenticated = timeout(HANDSHAKE_TIMEOUT, self.authenticate(stream)).await;
        match authenticated.unwrap_or(Err(RefusalReason::TimedOut)) {
            Err(error) => self.refusals.record(&error),
            Ok((stream, slot)) => {
                // A task of its own: the current one counts as unauthenticated, and may be aborted to make room
                // for newer connections.
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => {}
                        () = self.serve(stream) => {}
                    }
                    drop(slot);
                });
            }
        }
    }

    async fn authenticate(
        &self,
        stream: net::TcpStream,
    ) -> Result<(TlsStream<TcpStream>, OwnedSemaphorePermit), RefusalReason> {
        stream.set_nonblocking(true).map_err(RefusalReason::Tls)?;
        // Requests and replies are small, and each waits for the other: Nagle's algorithm would delay them.
        stream.set_nodelay(true).map_err(RefusalReason::Tls)?;
        let stream = TcpStream::from_std(stream).map_err(RefusalReason::Tls)?;
        // Without the wait for the peer's end, the reset of a closed socket could overtake the TLS alert that
        // tells the client what is wrong.
        let mut stream = match self.tls.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(RefusalReason::Tls(explain(error)));
            }
        };
        // The proof covers a value of this TLS session, so it cannot be replayed on another connection.
        let binding = binding(stream.get_ref().1)?;
        let request = frames::read(&mut stream, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX).await?;
        match self.check_auth(request.ok_or(RefusalReason::Left)?, &binding) {
            Ok(slot) => {
                let proof = self.token.prove(SERVER, &binding).to_vec();
                frames::write(
                    &mut stream,
                    &AuthReply::Welcome { proof },
                    TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX,
                )
                .await?;
                Ok((stream, slot))
            }
            Err((refusal, error)) => {
                frames::write(&mut stream, &AuthReply::Refused(refusal), TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX)
                    .await?;
                linger(stream).await;
                Err(error)
            }
        }
    }

    fn check_auth(
        &self,
        request: AuthRequest,
        binding: &[u8],
    ) -> Result<OwnedSemaphorePermit, (AuthRefusal, RefusalReason)> {
        let AuthRequest { version: theirs, proof } = request;
        // Before the proof, whose form may differ between versions.
        if theirs != VERSION {
            return Err((AuthRefusal::Version { ours: VERSION }, RefusalReason::Version { theirs }));
        }
        if !self.token.verify(CLIENT, binding, &proof) {
            return Err((AuthRefusal::Secret, RefusalReason::Secret));
        }
        // Last, and after the proof: only clients with the token can occupy the slots.
        Arc::clone(&self.connection_slots)
            .try_acquire_owned()
            .map_err(|_| (AuthRefusal::Busy, RefusalReason::Busy))
    }

    /// Answers the requests of a connection until it ends or idles.
    async fn serve(&self, mut stream: TlsStream<TcpStream>) {
        let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let presented = presented.map(|der| Certificate::verified(der.clone()));
        loop {
            let request = frames::read(&mut stream, TOKEN_RPC_REQUEST_BYTES_MAX);
            let reply = match timeout(TOKEN_RPC_IDLE_TIMEOUT, request).await {
                Ok(Ok(Some(request))) => self.handle_request(request, presented.as_ref()).await,
                Ok(Err(TokenRpcFrameError::Undecodable(why))) => TokenReply::Refused {
                    text: format!(
                        "the server does not know that request ({why}); run the same release on both sides"
                    ),
                },
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            };
            if !matches!(timeout(TOKEN_RPC_IDLE_TIMEOUT, write_reply(&mut stream, &reply)).await, Ok(Ok(())))
            {
                return;
            }
        }
    }

    async fn handle_request(
        &self,
        request: TokenRequest<S::Request>,
        presented: Option<&Certificate>,
    ) -> TokenReply<S::Reply> {
        match request {
            TokenRequest::Service(request) => TokenReply::Service(self.service.reply(request).await),
            TokenRequest::Enrol { csr, claims } => {
                if let Err(error) = claims.check_claimable() {
                    return TokenReply::Refused { text: error.to_string() };
                }
                let enrolled = self.service.enrol(csr, claims, presented).await;
                enrolled.map_or_else(|text| TokenReply::Refused { text }, TokenReply::Enrolled)
            }
            TokenRequest::Return { claims } => {
                if let Err(error) = claims.check_claimable() {
                    return TokenReply::Refused { text: error.to_string() };
                }
                // The TLS handshake accepts an expired certificate, since its holder may enrol again with it. A
                // rejoin without a signature needs a valid one.
                let Some(presented) = presented.filter(|it| is_valid_for(it, &claims)) else {
                    return TokenReply::Stale;
                };
                let returned = self.service.readmit(claims, presented).await;
                returned.map_or_else(|text| TokenReply::Refused { text }, TokenReply::Returned)
            }
        }
    }
}

/// Returns true if a certificate covers all claimed hosts in the claimed role, and has not expired.
fn is_valid_for(presented: &Certificate, claims: &Claims) -> bool {
    let is_valid = presented.expires().is_some_and(|end| SystemTime::now() < end);
    is_valid && claims.hosts.iter().all(|host| presented.role_of(*host) == Some(claims.role))
}

async fn write_reply<A: Serialize>(
    stream: &mut TlsStream<TcpStream>,
    reply: &TokenReply<A>,
) -> Result<(), TokenRpcFrameError> {
    match frames::write(stream, reply, TOKEN_RPC_REPLY_BYTES_MAX).await {
        // Both errors come before the first byte, so the connection can carry another reply instead.
        Err(error @ (TokenRpcFrameError::TooLong { .. } | TokenRpcFrameError::Unencodable(_))) => {
            let text = format!("cannot encode the reply: {error}; ask for less");
            frames::write(stream, &TokenReply::<()>::Refused { text }, TOKEN_RPC_REPLY_BYTES_MAX).await
        }
        written => written,
    }
}

impl<S> fmt::Debug for TokenRpcServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRpcServer(..)")
    }
}
