//! A desk: where somebody who has the cluster's token and no certificate is served, over TLS.
//!
//! A head's desk enrols processes and answers operators, an agent's answers operators about its node. The
//! server shows its certificate, and the client holds it against the authority that its token names; then
//! each proves to the other that it knows the token's secret. Both proofs are bound to this connection,
//! by what TLS exports for it, and are of no use on any other. Behind them a request follows the reply to
//! the one before. Knows nothing of what is asked and answered ([`TokenService`]).

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

/// Whose desk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// The head's.
    Head,
    /// That of the agent whose address it is.
    Agent,
}

impl Endpoint {
    /// What its certificate has to say.
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
