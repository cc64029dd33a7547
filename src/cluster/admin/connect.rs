//! The way to a desk: checks the token, dials, proves the secret.

use std::net::SocketAddr;

use super::client::{Admin, AdminEndpoint, AdminError, AdminTransport};
use super::request::{AdminReply, AdminRequest};
use crate::cluster::security::Token;
use crate::cluster::security::token_rpc::{Endpoint, TokenRpcClient, TokenRpcError};

impl AdminTransport for TokenRpcClient {
    async fn exchange(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        self.ask(&request).await.map_err(|error| match error {
            TokenRpcError::Refused { text } => AdminError::Failed(text),
            error => AdminError::Lost { why: error.to_string() },
        })
    }
}

impl Admin<TokenRpcClient> {
    /// Connects to a desk with a cluster's token.
    ///
    /// # Errors
    ///
    /// [`AdminError::Refused`] if the token is mistyped or another cluster's;
    /// [`AdminError::Unreachable`] if nobody answers at `address`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn connect(desk: AdminEndpoint, address: SocketAddr, token: &str) -> Result<Self, AdminError> {
        Self::connect_any(desk, &[address], token).await.map(|(_, connected)| connected)
    }

    /// Connects to a desk at the first of several addresses that answers as it; gives which one it is.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), with what became of each address.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connections.
    pub async fn connect_any(
        desk: AdminEndpoint,
        addresses: &[SocketAddr],
        token: &str,
    ) -> Result<(SocketAddr, Self), AdminError> {
        let token: Token = token.parse().map_err(|error| AdminError::Refused(format!("{error}")))?;
        let desk = match desk {
            AdminEndpoint::Head => Endpoint::Head,
            AdminEndpoint::Agent => Endpoint::Agent,
        };
        let connected = TokenRpcClient::connect_any(None, addresses, desk, &token).await;
        let connected = connected.map_err(|error| match error.is_final() {
            true => AdminError::Refused(error.to_string()),
            false => AdminError::Unreachable(error.to_string()),
        });
        connected.map(|(address, desk)| (address, Self::new(desk)))
    }
}

/// Whether a token is one at all, as far as that can be seen without its cluster.
///
/// # Errors
///
/// [`AdminError::Refused`] if it is mistyped.
pub fn check_token(token: &str) -> Result<(), AdminError> {
    token.parse::<Token>().map(drop).map_err(|error| AdminError::Refused(error.to_string()))
}
