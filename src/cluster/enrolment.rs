//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::net::SocketAddr;

use super::desk::{DeskClient, DeskError, DeskOf, Enrolment};
use super::trust::{Claims, Token};
use crate::transport::Credentials;

/// Enrols with the head at that address, for the first time.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn enrol(head: SocketAddr, token: &Token, claims: &Claims) -> Result<Enrolment, DeskError> {
    DeskClient::connect(head, DeskOf::Head, token).await?.enrol(claims).await
}

/// Enrols again, as the process whose certificate this is.
///
/// It may have expired: the desk takes it all the same, and the head certifies nobody else for its hosts while
/// the process lives.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn enrol_again(
    head: SocketAddr,
    token: &Token,
    claims: &Claims,
    credentials: &Credentials,
) -> Result<Enrolment, DeskError> {
    DeskClient::connect_as(Some(credentials), head, DeskOf::Head, token).await?.enrol(claims).await
}
