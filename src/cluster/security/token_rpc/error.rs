//! Errors of a token RPC.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::frames::TokenRpcFrameError;
use crate::cluster::security::RequestError;
use crate::observe::Chain;
use crate::transport::{CredentialsError, Role};

/// Failure of a token RPC.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenRpcError {
    /// The connection was refused or failed.
    #[error("cannot connect to the {role} at {address}: {error}; check the address, and that it runs")]
    Connect {
        /// Role of the server that was dialled.
        role: Role,
        /// Dialled address.
        address: SocketAddr,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The server accepted the connection but did not answer in time.
    #[error("the {role} at {address} did not answer within {within:?}; check the address, and its log")]
    TimedOut {
        /// Role of the server that was dialled.
        role: Role,
        /// Dialled address.
        address: SocketAddr,
        /// Timeout.
        within: Duration,
    },
    /// The server closed the connection before it answered.
    #[error(
        "{address} closed the connection: no {role} is there, or it is overloaded; check the address, and \
         its log"
    )]
    ConnectionClosed {
        /// Role of the server that was dialled.
        role: Role,
        /// Dialled address.
        address: SocketAddr,
    },
    /// The token belongs to another cluster.
    #[error(
        "the {role} at {address} belongs to another cluster than the token; check the address, or take the token \
         of the cluster that is there"
    )]
    OtherCluster {
        /// Role of the server that was dialled.
        role: Role,
        /// Dialled address.
        address: SocketAddr,
    },
    /// The server could not prove that it has the role that the client dialled.
    #[error("the server at {address} is no {role} of the token's cluster: {why}")]
    NotCertified {
        /// Role of the server that was dialled.
        role: Role,
        /// Dialled address.
        address: SocketAddr,
        /// Reason of the failed verification.
        why: String,
    },
    /// The token names the right authority, but its secret is not the cluster's present one.
    #[error("the token's secret is not this cluster's; take the token that its head has now")]
    WrongSecret,
    /// The server speaks another version of the token RPC.
    #[error(
        "the server speaks version {theirs} of the token RPC and this process version {ours}; run the same release \
         on both"
    )]
    Version {
        /// Version of the server.
        theirs: u16,
        /// Version of this build.
        ours: u16,
    },
    /// The server has reached its connection limit.
    #[error("the server has reached its limit of connections; try again")]
    Busy,
    /// The server rejected the request.
    #[error("{text}")]
    Refused {
        /// Reason, as the server reported it.
        text: String,
    },
    /// The connection broke before the reply arrived; the request may have been carried out.
    #[error("the connection of the token RPC broke: {0}")]
    Broken(String),
    /// The name resolves to several addresses, and every one of them failed.
    #[error("none of {} addresses will do: {}", attempts.len(), each(attempts))]
    NoneOf {
        /// Error of each address, in the order in which the attempts failed.
        attempts: Vec<Self>,
    },
    /// No key pair could be generated.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The issued certificate cannot be used.
    #[error("the issued certificate cannot be used: {0}")]
    Credentials(CredentialsError),
}

impl From<CredentialsError> for TokenRpcError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(error)
    }
}

impl TokenRpcError {
    /// Reports that a retry would fail in the same way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            // A retry of the whole name makes sense as long as one of its addresses may still answer.
            Self::NoneOf { attempts } => attempts.iter().all(Self::is_final),
            // The network, a restart of the server or its load: these pass. Everything else has to be changed by
            // the operator.
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::ConnectionClosed { .. }
            | Self::Busy
            | Self::Broken(_) => false,
            _ => true,
        }
    }
}

fn each(attempts: &[TokenRpcError]) -> String {
    attempts.iter().map(|attempt| Chain(attempt).to_string()).collect::<Vec<_>>().join("; ")
}

impl From<TokenRpcFrameError> for TokenRpcError {
    fn from(error: TokenRpcFrameError) -> Self {
        Self::Broken(error.to_string())
    }
}
