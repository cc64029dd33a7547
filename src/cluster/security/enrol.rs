//! Enrolment: a process proves that it knows the token and receives a certificate.
//!
//! A submitted driver that runs as another user than its node's agent has no token. It sends its request over a
//! socket ([`ENROLMENT_VARIABLE`]), and the agent has the head certify the driver for its job.

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

/// Environment variable with the path of the socket through which a submitted driver enrols.
pub(crate) const ENROLMENT_VARIABLE: &str = "ROADSHOW_ENROLMENT";

/// Enrols for the first time with the head at one of these addresses, and returns the address that answered.
///
/// # Cancel safety
///
/// Dropping the future cancels the attempt.
pub(crate) async fn enrol(
    heads: &[SocketAddr],
    token: &Token,
    claims: &Claims,
) -> Result<(SocketAddr, Enrolment), TokenRpcError> {
    let (head, mut client) = TokenRpcClient::connect_any(None, heads, Endpoint::Head, token).await?;
    Ok((head, client.enrol(claims).await?))
}

/// Reason for which a rejoining process may need another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The next certificate is due.
    Due,
    /// The present certificate may have lost its freshness; otherwise it is reused.
    IfStale,
}

/// Head that a process has rejoined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejoined {
    /// Address at which the head answered.
    pub(crate) head_at: SocketAddr,
    /// Present incarnation of the head.
    pub(crate) head: HostUid,
    /// The process has another certificate now.
    pub(crate) renewed: bool,
}

/// Rejoins the head at one of these addresses with the process's present certificate. `last`, the head's previous
/// address, is tried first.
///
/// A fresh certificate is kept: after a restart of the head thousands of members rejoin, and every signature costs
/// the one head CPU time. The process enrols again if the head demands it or if `renewal` says so. An expired
/// certificate is accepted here: the head certifies no other process for these hosts while this one lives.
///
/// # Errors
///
/// [`TokenRpcError`] if no head answers, or the head rejects the process.
///
/// # Cancel safety
///
/// Dropping the future cancels the attempt.
pub(crate) async fn rejoin(
    heads: &[SocketAddr],
    last: SocketAddr,
    token: &Token,
    claims: &Claims,
    credentials: &Credentials,
    renewal: Renewal,
) -> Result<Rejoined, TokenRpcError> {
    // The addresses are dialled one after another with a pause between, so the likeliest one goes first.
    let others = heads.iter().copied().filter(|head| *head != last);
    let heads: Vec<_> = iter::once(last).chain(others).collect();
    let connected = TokenRpcClient::connect_any(Some(credentials), &heads, Endpoint::Head, token).await;
    let (head_at, mut client) = connected?;
    if renewal == Renewal::IfStale
        && credentials.is_fresh()
        && let Some(returned) = client.rejoin(claims).await?
    {
        return Ok(Rejoined { head_at, head: returned.head, renewed: false });
    }
    let enrolled = client.enrol(claims).await?;
    // Shared by all hosts of the process; links that are up keep the certificate they were opened with.
    credentials.renew(&enrolled.credentials)?;
    Ok(Rejoined { head_at, head: enrolled.head, renewed: true })
}

/// Means by which a driver enrols.
#[derive(Debug)]
pub(crate) enum DriverEnrolment {
    /// Token of the cluster.
    Token(Token),
    /// Socket of the agent that has started the driver.
    Agent(PathBuf),
}

/// Enrolled driver: its enrolment, the head's address, and the hosts' session secret.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) head_at: SocketAddr,
    pub(crate) enrolment: Enrolment,
    pub(crate) secret: Secret,
}

impl DriverEnrolment {
    /// Enrols the driver for the first time.
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

    /// Rejoins as [`rejoin`] does. Through an agent the driver enrols anew each time.
    pub(crate) async fn rejoin(
        &self,
        heads: &[SocketAddr],
        last: SocketAddr,
        claims: &Claims,
        credentials: &Credentials,
        renewal: Renewal,
    ) -> Result<Rejoined, TokenRpcError> {
        match self {
            Self::Token(token) => rejoin(heads, last, token, claims, credentials, renewal).await,
            Self::Agent(socket) => {
                let Admitted { head_at, enrolment, .. } = ask_agent(socket, claims).await?;
                // Without the token there is no connection to the head on which the old certificate could be shown.
                credentials.renew(&enrolment.credentials)?;
                Ok(Rejoined { head_at, head: enrolment.head, renewed: true })
            }
        }
    }
}

/// Enrolment request of a driver to its agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnrolRequest {
    pub(crate) hosts: Vec<HostUid>,
    /// PKCS #10 request in DER.
    pub(crate) csr: Vec<u8>,
}

/// Reply of the agent.
#[derive(Serialize, Deserialize)]
pub(crate) enum EnrolReply {
    Enrolled { chain: Vec<Vec<u8>>, head: HostUid, head_at: SocketAddr, secret: [u8; 32] },
    Failed { text: String },
}

impl fmt::Debug for EnrolReply {
    /// Omits the secret.
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
    let message = EnrolRequest { hosts: claims.hosts.clone(), csr: request.csr().to_vec() };
    let broken = |error: io::Error| TokenRpcError::Broken(format!("this node's agent: {error}"));
    let reply = timeout(HANDSHAKE_TIMEOUT, exchange(socket, &message)).await;
    let timed_out =
        |_| TokenRpcError::Broken(format!("this node's agent did not answer within {HANDSHAKE_TIMEOUT:?}"));
    match reply.map_err(timed_out)?.map_err(broken)? {
        EnrolReply::Enrolled { chain, head, head_at, secret } => {
            let credentials = request.credentials(chain)?;
            // A driver has no use for the cluster's name, so the agent does not send it.
            let enrolment = Enrolment { credentials, head, cluster: String::new() };
            Ok(Admitted { head_at, enrolment, secret: Secret::from_bytes(secret) })
        }
        EnrolReply::Failed { text } => Err(TokenRpcError::Refused { text }),
    }
}

async fn exchange(socket: &Path, request: &EnrolRequest) -> io::Result<EnrolReply> {
    let mut connection = UnixStream::connect(socket).await?;
    connection.write_all(&worker::encode(request)?).await?;
    let mut length = [0; 4];
    connection.read_exact(&mut length).await?;
    let mut body = vec![0; worker::validate_length(length)?];
    connection.read_exact(&mut body).await?;
    worker::decode(&body)
}
