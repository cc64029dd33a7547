//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::net::SocketAddr;

use super::desk::{DeskClient, DeskError, DeskOf, Enrolment};
use super::trust::{Claims, Token};

/// Enrols with the head at that address.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn enrol(head: SocketAddr, token: &Token, claims: &Claims) -> Result<Enrolment, DeskError> {
    DeskClient::connect(head, DeskOf::Head, token).await?.enrol(claims).await
}
