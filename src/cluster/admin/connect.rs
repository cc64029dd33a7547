//! Connection setup of an admin client: checks the token, dials, and authenticates both sides.

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
    /// Connects to a head or an agent with a cluster's token.
    ///
    /// # Errors
    ///
    /// [`AdminError::Refused`] if the token is mistyped or belongs to another cluster;
    /// [`AdminError::Unreachable`] if no process answers at `address`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn connect(
        endpoint: AdminEndpoint,
        address: SocketAddr,
        token: &str,
    ) -> Result<Self, AdminError> {
        Self::connect_any(endpoint, &[address], token).await.map(|(_, connected)| connected)
    }

    /// Connects to the first of several addresses that answers, and returns that address with the client.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), with the failure of each address.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connections.
    pub async fn connect_any(
        endpoint: AdminEndpoint,
        addresses: &[SocketAddr],
        token: &str,
    ) -> Result<(SocketAddr, Self), AdminError> {
        let token: Token = token.parse().map_err(|error| AdminError::Refused(format!("{error}")))?;
        let endpoint = match endpoint {
            AdminEndpoint::Head => Endpoint::Head,
            AdminEndpoint::Agent => Endpoint::Agent,
        };
        let connected = TokenRpcClient::connect_any(None, addresses, endpoint, &token).await;
        let connected = connected.map_err(|error| match error.is_final() {
            true => AdminError::Refused(error.to_string()),
            false => AdminError::Unreachable(error.to_string()),
        });
        connected.map(|(address, client)| (address, Self::new(client)))
    }
}

/// Checks the form and checksum of a token. Only its cluster can check the secret.
///
/// # Errors
///
/// [`AdminError::Refused`] if it is mistyped.
pub fn check_token(token: &str) -> Result<(), AdminError> {
    token.parse::<Token>().map(drop).map_err(|error| AdminError::Refused(error.to_string()))
}
