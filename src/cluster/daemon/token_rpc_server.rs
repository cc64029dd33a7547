//! Who stands behind a desk.

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

/// What is done at a desk for those who have proved that they know the token.
pub(crate) trait TokenService: Send + Sync + 'static {
    /// What may be asked.
    type Request: DeserializeOwned + Send;
    /// What is answered.
    type Reply: Serialize + Send + Sync;

    /// Answers a request. It is brought to its end whether or not anybody waits, unless the desk closes.
    fn answer(&self, request: Self::Request) -> impl Future<Output = Self::Reply> + Send;

    /// Certifies a process that claims to be an agent or a driver; else says why not, and what to do. It may
    /// have shown a certificate that it has already.
    ///
    /// That its hosts are nobody else's is for this to see to.
    fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        shown: Option<&Certificate>,
    ) -> impl Future<Output = Result<Enrolled, String>> + Send {
        drop((csr, claims, shown));
        ready(Err(NO_HEAD.to_owned()))
    }

    /// Takes back an agent or a driver that has shown a valid certificate for what it claims to be; else says why
    /// not, and what to do.
    ///
    /// The service checks that no other process has the hosts.
    fn take_back(
        &self,
        claims: Claims,
        shown: &Certificate,
    ) -> impl Future<Output = Result<Returned, String>> + Send {
        drop((claims, shown));
        ready(Err(NO_HEAD.to_owned()))
    }
}

const NO_HEAD: &str = "this is no head's desk, and only a head enrols; use the head's address";

/// A desk. It serves many at once, each of them one request after the other.
pub(crate) struct TokenRpcServer<S> {
    service: S,
    tls: TlsAcceptor,
    token: Token,
    connection_slots: Arc<Semaphore>,
    refusals: RejectionLog,
}

/// Why somebody is not served.
#[derive(Debug, Error)]
enum RefusalReason {
    #[error("{0}")]
    Tls(io::Error),
    #[error(transparent)]
    Binding(#[from] rustls::Error),
    #[error(transparent)]
    Frame(#[from] TokenRpcFrameError),
    #[error("somebody came to the desk and left")]
    Left,
    #[error("somebody came to the desk with another secret than the cluster's")]
    Secret,
    #[error("somebody came to the desk with version {theirs} of its protocol")]
    Version { theirs: u16 },
    #[error("the desk serves {TOKEN_RPC_CONNECTIONS_MAX} already")]
    Busy,
    #[error("somebody came to the desk and proved nothing in time")]
    TimedOut,
}

impl<S: TokenService> TokenRpcServer<S> {
    /// A desk that shows these credentials, and serves those who know that token.
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

    /// Serves all who come in, past their preambles, until nobody can come any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all connections.
    pub(crate) async fn run(self: Arc<Self>, mut incoming: mpsc::Receiver<net::TcpStream>) {
        let mut strangers = UnauthenticatedConnections::default();
        let closing = CancellationToken::new();
        let _closed_at_last = closing.clone().drop_guard();
        while let Some(stream) = incoming.recv().await {
            let source = stream.peer_addr().ok().map(|address| address.ip());
            let greeting = Arc::clone(&self).handle_connection(stream, closing.clone());
            if let Err(crowded) = strangers.spawn(source, HANDSHAKES_OPEN_MAX, greeting) {
                self.refusals.record(&crowded);
            }
        }
    }

    async fn handle_connection(self: Arc<Self>, stream: net::TcpStream, closing: CancellationToken) {
        let proven = timeout(HANDSHAKE_TIMEOUT, self.authenticate(stream)).await;
        match proven.unwrap_or(Err(RefusalReason::TimedOut)) {
            Err(error) => self.refusals.record(&error),
            Ok((stream, place)) => {
                // Not here: this task counts as a stranger's.
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => {}
                        () = self.serve(stream) => {}
                    }
                    drop(place);
                });
            }
        }
    }

    async fn authenticate(
        &self,
        stream: net::TcpStream,
    ) -> Result<(TlsStream<TcpStream>, OwnedSemaphorePermit), RefusalReason> {
        stream.set_nonblocking(true).map_err(RefusalReason::Tls)?;
        stream.set_nodelay(true).map_err(RefusalReason::Tls)?;
        let stream = TcpStream::from_std(stream).map_err(RefusalReason::Tls)?;
        let mut stream = match self.tls.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(RefusalReason::Tls(explain(error)));
            }
        };
        let binding = binding(stream.get_ref().1)?;
        let opening = frames::read(&mut stream, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX).await?;
        match self.check_auth(opening.ok_or(RefusalReason::Left)?, &binding) {
            Ok(place) => {
                let proof = self.token.prove(SERVER, &binding).to_vec();
                frames::write(
                    &mut stream,
                    &AuthReply::Welcome { proof },
                    TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX,
                )
                .await?;
                Ok((stream, place))
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
        opening: AuthRequest,
        binding: &[u8],
    ) -> Result<OwnedSemaphorePermit, (AuthRefusal, RefusalReason)> {
        let AuthRequest { version: theirs, proof } = opening;
        if theirs != VERSION {
            return Err((AuthRefusal::Version { ours: VERSION }, RefusalReason::Version { theirs }));
        }
        if !self.token.verify(CLIENT, binding, &proof) {
            return Err((AuthRefusal::Secret, RefusalReason::Secret));
        }
        Arc::clone(&self.connection_slots)
            .try_acquire_owned()
            .map_err(|_| (AuthRefusal::Busy, RefusalReason::Busy))
    }

    /// Answers until nothing more is asked.
    async fn serve(&self, mut stream: TlsStream<TcpStream>) {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.map(|der| Certificate::verified(der.clone()));
        loop {
            let asked = frames::read(&mut stream, TOKEN_RPC_REQUEST_BYTES_MAX);
            let answer = match timeout(TOKEN_RPC_IDLE_TIMEOUT, asked).await {
                Ok(Ok(Some(ask))) => self.handle_request(ask, shown.as_ref()).await,
                Ok(Err(TokenRpcFrameError::Undecodable(why))) => TokenReply::Refused {
                    text: format!(
                        "the desk does not know that request ({why}); run the same release on both sides"
                    ),
                },
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            };
            if !matches!(timeout(TOKEN_RPC_IDLE_TIMEOUT, write_reply(&mut stream, &answer)).await, Ok(Ok(())))
            {
                return;
            }
        }
    }

    async fn handle_request(
        &self,
        ask: TokenRequest<S::Request>,
        shown: Option<&Certificate>,
    ) -> TokenReply<S::Reply> {
        match ask {
            TokenRequest::Service(request) => TokenReply::Service(self.service.answer(request).await),
            TokenRequest::Enrol { csr, claims } => {
                if let Err(error) = claims.check_claimable() {
                    return TokenReply::Refused { text: error.to_string() };
                }
                let enrolled = self.service.enrol(csr, claims, shown).await;
                enrolled.map_or_else(|text| TokenReply::Refused { text }, TokenReply::Enrolled)
            }
            TokenRequest::Return { claims } => {
                if let Err(error) = claims.check_claimable() {
                    return TokenReply::Refused { text: error.to_string() };
                }
                // The handshake takes one that has expired, too: with that, another is to be had.
                let Some(shown) = shown.filter(|shown| is_valid_for(shown, &claims)) else {
                    return TokenReply::Stale;
                };
                let returned = self.service.take_back(claims, shown).await;
                returned.map_or_else(|text| TokenReply::Refused { text }, TokenReply::Returned)
            }
        }
    }
}

/// Whether a certificate is for these hosts in that role, and has not expired.
fn is_valid_for(shown: &Certificate, claims: &Claims) -> bool {
    let is_valid = shown.expires().is_some_and(|end| SystemTime::now() < end);
    is_valid && claims.hosts.iter().all(|host| shown.role_of(*host) == Some(claims.role))
}

async fn write_reply<A: Serialize>(
    stream: &mut TlsStream<TcpStream>,
    answer: &TokenReply<A>,
) -> Result<(), TokenRpcFrameError> {
    match frames::write(stream, answer, TOKEN_RPC_REPLY_BYTES_MAX).await {
        // Nothing of it was written.
        Err(error @ (TokenRpcFrameError::TooLong { .. } | TokenRpcFrameError::Unencodable(_))) => {
            let text = format!("the desk cannot say the reply: {error}; ask for less");
            frames::write(stream, &TokenReply::<()>::Refused { text }, TOKEN_RPC_REPLY_BYTES_MAX).await
        }
        said => said,
    }
}

impl<S> fmt::Debug for TokenRpcServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk(..)")
    }
}
