//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::net::SocketAddr;

use super::desk::{DeskClient, DeskError, DeskOf, Enrolment};
use super::trust::{Claims, Token};
use crate::transport::Credentials;

/// Enrols with the head at one of these addresses, for the first time; gives at which.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn enrol(
    heads: &[SocketAddr],
    token: &Token,
    claims: &Claims,
) -> Result<(SocketAddr, Enrolment), DeskError> {
    let (head, mut desk) = DeskClient::connect_any(heads, DeskOf::Head, token).await?;
    Ok((head, desk.enrol(claims).await?))
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
