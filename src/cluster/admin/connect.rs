//! The way to a desk: checks the token, dials, proves the secret.

use std::net::SocketAddr;

use super::client::{Admin, AdminError, Desk, Exchange};
use super::request::{AdminReply, AdminRequest};

/// A proved connection to a desk.
#[derive(Debug)]
pub struct DeskClient(Never);

#[derive(Debug)]
enum Never {}

impl Exchange for DeskClient {
    async fn exchange(&mut self, _: AdminRequest) -> Result<AdminReply, AdminError> {
        match self.0 {}
    }
}

impl Admin<DeskClient> {
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
    pub async fn connect(desk: Desk, address: SocketAddr, token: &str) -> Result<Self, AdminError> {
        check_token(token)?;
        let why = format!("this build has no way to the desk of the {desk:?} yet");
        std::future::ready(Err(AdminError::Unreachable { address, why })).await
    }
}

/// Whether a token is one at all, as far as that can be seen without its cluster.
///
/// # Errors
///
/// [`AdminError::Refused`] if it is mistyped.
pub fn check_token(token: &str) -> Result<(), AdminError> {
    if token.is_empty() {
        return Err(AdminError::Refused(
            "the token is empty; copy it as `roadshow start --head` printed it".to_owned(),
        ));
    }
    Ok(())
}
