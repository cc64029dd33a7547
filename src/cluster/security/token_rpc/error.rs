//! Why somebody is not served at a desk.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::frames::TokenRpcFrameError;
use crate::cluster::security::RequestError;
use crate::observe::Chain;
use crate::transport::{CredentialsError, Role};

/// Nothing came of a visit to a desk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenRpcError {
    /// Nobody answers at the address.
    #[error("cannot connect to the {role} at {address}: {error}; check the address, and that it runs")]
    Connect {
        /// Who was wanted.
        role: Role,
        /// Where.
        address: SocketAddr,
        /// The operating system's words.
        error: io::Error,
    },
    /// Somebody is there and does not answer.
    #[error("the {role} at {address} did not answer within {within:?}; check the address, and its log")]
    TimedOut {
        /// Who was wanted.
        role: Role,
        /// Where.
        address: SocketAddr,
        /// How long it had.
        within: Duration,
    },
    /// Somebody was there and went.
    #[error(
        "{address} closed the connection: no {role} is there, or it has too much to do; check the address, and \
         its log"
    )]
    ConnectionClosed {
        /// Who was wanted.
        role: Role,
        /// Where.
        address: SocketAddr,
    },
    /// The token is another cluster's.
    #[error(
        "the {role} at {address} belongs to another cluster than the token; check the address, or take the token \
         of the cluster that is there"
    )]
    OtherCluster {
        /// Who was wanted.
        role: Role,
        /// Where.
        address: SocketAddr,
    },
    /// Whoever answers cannot show that it is whom it should be.
    #[error("what answers at {address} is no {role} of the token's cluster: {why}")]
    NotCertified {
        /// Who was wanted.
        role: Role,
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// The token has the authority's digest, and not the secret that the cluster has now.
    #[error("the token's secret is not this cluster's; take the token that its head has now")]
    WrongSecret,
    /// The desk speaks another version.
    #[error(
        "the desk speaks version {theirs} of its protocol and this process version {ours}; run the same release on \
         both"
    )]
    Version {
        /// The desk's.
        theirs: u16,
        /// This build's.
        ours: u16,
    },
    /// The desk has too many visitors.
    #[error("the desk serves as many as it can; try again")]
    Busy,
    /// The desk does not do what was asked.
    #[error("{text}")]
    Refused {
        /// Why, in its words.
        text: String,
    },
    /// The connection broke before the reply was there; what was asked for may have been done.
    #[error("the connection to the desk broke: {0}")]
    Broken(String),
    /// The name stands for several addresses, and none of them will do.
    #[error("none of {} addresses will do: {}", attempts.len(), each(attempts))]
    NoneOf {
        /// What became of each.
        attempts: Vec<Self>,
    },
    /// No key could be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificate that was issued is of no use.
    #[error("the certificate that was issued is of no use: {0}")]
    Credentials(CredentialsError),
}

impl From<CredentialsError> for TokenRpcError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(error)
    }
}

impl TokenRpcError {
    /// Whether another attempt would end in the same way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::NoneOf { attempts } => attempts.iter().all(Self::is_final),
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
