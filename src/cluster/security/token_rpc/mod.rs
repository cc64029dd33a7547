//! Token RPC: requests authenticated by the cluster's token, over TLS, for peers that have no certificate yet.
//!
//! The head's endpoint enrols processes and serves operators; an agent's endpoint serves operators of its node.
//!
//! ```text
//! client                                        server
//!   | --- preamble (route), TLS 1.3 handshake --> |  client pins the authority's key digest from the token
//!   | --- AuthRequest { version, proof } -------> |  HMAC over the TLS exporter value
//!   | <-- AuthReply::Welcome { proof } ---------- |  each direction has its own label
//!   | --- TokenRequest -------------------------> |
//!   | <-- TokenReply ---------------------------- |  requests follow one another, one in flight
//! ```
//!
//! Both proofs are bound to the connection by the TLS exporter, so a proof is useless on any other connection.
//! The module knows nothing of the requests that a `TokenService` handles.

pub(in crate::cluster) mod client;
mod error;
pub(in crate::cluster) mod frames;
pub(in crate::cluster) mod message;

pub(crate) use client::Enrolment;
pub use client::TokenRpcClient;
pub use error::TokenRpcError;
#[cfg(feature = "cli")]
pub(crate) use message::{Enrolled, Returned};

use crate::transport::{Role, Route};

/// Process that serves the token RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// The head.
    Head,
    /// The agent that listens at the dialled address.
    Agent,
}

impl Endpoint {
    /// Role that the server's certificate must have.
    fn role(self) -> Role {
        match self {
            Self::Head => Role::Head,
            Self::Agent => Role::Agent,
        }
    }

    fn route(self) -> Route {
        match self {
            Self::Head => Route::HeadTokenRpc,
            Self::Agent => Route::AgentTokenRpc,
        }
    }
}
