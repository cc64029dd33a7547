//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.
//!
//! A submitted driver that runs as another user than its node's agent has no token. It asks the agent over a socket
//! ([`ENROLMENT_VARIABLE`]), and the agent has the head certify it for its job.

use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::token_rpc::{Endpoint, Enrolment, TokenRpcClient, TokenRpcError};
use super::{CertificateRequest, Claims, Token};
use crate::cluster::protocol::worker;
use crate::config::HANDSHAKE_TIMEOUT;
use crate::id::HostUid;
use crate::session::Secret;
use crate::transport::Credentials;

/// The variable with the path of the socket by which a submitted driver enrols.
pub(crate) const ENROLMENT_VARIABLE: &str = "ROADSHOW_ENROLMENT";

/// Enrols with the head at one of these addresses, for the first time; gives at which.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(crate) async fn enrol(
    heads: &[SocketAddr],
    token: &Token,
    claims: &Claims,
) -> Result<(SocketAddr, Enrolment), TokenRpcError> {
    let (head, mut desk) = TokenRpcClient::connect_any(None, heads, Endpoint::Head, token).await?;
    Ok((head, desk.enrol(claims).await?))
}

/// Whether a process that comes back to the head needs another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The next certificate is due.
    Due,
    /// If the one that it has is not fresh any more.
    IfStale,
}

/// The head that a process has come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    /// Which of its addresses has answered.
    pub(crate) head_at: SocketAddr,
    /// In its present life.
    pub(crate) head: HostUid,
    /// Whether the process has another certificate now.
    pub(crate) renewed: bool,
}

/// Comes back to the head at one of these addresses, as the process whose certificate this is. The address `last`
/// had the head before, and is tried first.
///
/// A fresh certificate is kept: after a restart of the head thousands come back, and each signature is work for the
/// one head. Where the head asks for it, or `renewal` says so, the process is certified anew. Its certificate may
/// have expired: the desk takes it all the same, and the head certifies nobody else for its hosts while the process
/// lives.
///
/// # Errors
///
/// [`TokenRpcError`] if no head answers, or it does not take the process back.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(crate) async fn rejoin(
    heads: &[SocketAddr],
    last: SocketAddr,
    token: &Token,
    claims: &Claims,
    credentials: &Credentials,
    renewal: Renewal,
) -> Result<Back, TokenRpcError> {
    let others = heads.iter().copied().filter(|head| *head != last);
    let heads: Vec<_> = iter::once(last).chain(others).collect();
    let connected = TokenRpcClient::connect_any(Some(credentials), &heads, Endpoint::Head, token).await;
    let (head_at, mut desk) = connected?;
    if renewal == Renewal::IfStale
        && credentials.is_fresh()
        && let Some(returned) = desk.rejoin(claims).await?
    {
        return Ok(Back { head_at, head: returned.head, renewed: false });
    }
    let enrolled = desk.enrol(claims).await?;
    credentials.renew(&enrolled.credentials)?;
    Ok(Back { head_at, head: enrolled.head, renewed: true })
}

/// What lets a driver into its cluster.
#[derive(Debug)]
pub(crate) enum DriverEnrolment {
    /// The cluster's token.
    Token(Token),
    /// The agent that has started it, at this socket.
    Agent(PathBuf),
}

/// A driver that is enrolled, where the head is, and what hosts prove to each other.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) head_at: SocketAddr,
    pub(crate) enrolment: Enrolment,
    pub(crate) secret: Secret,
}

impl DriverEnrolment {
    /// Enrols for the first time.
    pub(crate) async fn enrol(
        &self,
        heads: &[SocketAddr],
        claims: &Claims,
    ) -> Result<Admitted, TokenRpcError> {
        match self {
            Self::Token(token) => {
                let (head_at, enrolment) = enrol(heads, token, claims).await?;
                Ok(Admitted { head_at, enrolment, secret: token.session_secret() })
            }
            Self::Agent(socket) => ask_agent(socket, claims).await,
        }
    }

    /// Takes the driver back, as [`rejoin`] does. An agent has it certified anew each time.
    pub(crate) async fn rejoin(
        &self,
        heads: &[SocketAddr],
        last: SocketAddr,
        claims: &Claims,
        credentials: &Credentials,
        renewal: Renewal,
    ) -> Result<Back, TokenRpcError> {
        match self {
            Self::Token(token) => rejoin(heads, last, token, claims, credentials, renewal).await,
            Self::Agent(socket) => {
                let Admitted { head_at, enrolment, .. } = ask_agent(socket, claims).await?;
                credentials.renew(&enrolment.credentials)?;
                Ok(Back { head_at, head: enrolment.head, renewed: true })
            }
        }
    }
}

/// A driver's request to its agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnrolRequest {
    pub(crate) hosts: Vec<HostUid>,
    /// PKCS #10, in DER.
    pub(crate) csr: Vec<u8>,
}

/// The agent's answer.
#[derive(Serialize, Deserialize)]
pub(crate) enum EnrolReply {
    Enrolled { chain: Vec<Vec<u8>>, head: HostUid, head_at: SocketAddr, secret: [u8; 32] },
    Failed { text: String },
}

impl fmt::Debug for EnrolReply {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrolled { head, head_at, .. } => f
                .debug_struct("Enrolled")
                .field("head", head)
                .field("head_at", head_at)
                .finish_non_exhaustive(),
            Self::Failed { text } => f.debug_struct("Failed").field("text", text).finish(),
        }
    }
}

/// Enrols through the agent that has started this process.
async fn ask_agent(socket: &Path, claims: &Claims) -> Result<Admitted, TokenRpcError> {
    let request = CertificateRequest::new()?;
    let asked = EnrolRequest { hosts: claims.hosts.clone(), csr: request.csr().to_vec() };
    let broken = |error: io::Error| TokenRpcError::Broken(format!("that of this node's agent: {error}"));
    let reply = timeout(HANDSHAKE_TIMEOUT, converse(socket, &asked)).await;
    let late =
        |_| TokenRpcError::Broken(format!("this node's agent did not answer within {HANDSHAKE_TIMEOUT:?}"));
    match reply.map_err(late)?.map_err(broken)? {
        EnrolReply::Enrolled { chain, head, head_at, secret } => {
            let credentials = request.credentials(chain)?;
            let enrolment = Enrolment { credentials, head, cluster: String::new() };
            Ok(Admitted { head_at, enrolment, secret: Secret::from_bytes(secret) })
        }
        EnrolReply::Failed { text } => Err(TokenRpcError::Refused { text }),
    }
}

async fn converse(socket: &Path, request: &EnrolRequest) -> io::Result<EnrolReply> {
    let mut connection = UnixStream::connect(socket).await?;
    connection.write_all(&worker::encode(request)?).await?;
    let mut length = [0; 4];
    connection.read_exact(&mut length).await?;
    let mut body = vec![0; worker::validate_length(length)?];
    connection.read_exact(&mut body).await?;
    worker::decode(&body)
}
