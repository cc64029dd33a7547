//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::iter;
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
    let (head, mut desk) = DeskClient::connect_any(None, heads, DeskOf::Head, token).await?;
    Ok((head, desk.enrol(claims).await?))
}

/// Enrols again with the head at one of these addresses, as the process whose certificate this is; gives at which.
/// The address `last` had the head before, and is tried first.
///
/// The certificate may have expired: the desk takes it all the same, and the head certifies nobody else for its
/// hosts while the process lives.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn enrol_again(
    heads: &[SocketAddr],
    last: SocketAddr,
    token: &Token,
    claims: &Claims,
    credentials: &Credentials,
) -> Result<(SocketAddr, Enrolment), DeskError> {
    let others = heads.iter().copied().filter(|head| *head != last);
    let heads: Vec<_> = iter::once(last).chain(others).collect();
    let (head, mut desk) = DeskClient::connect_any(Some(credentials), &heads, DeskOf::Head, token).await?;
    Ok((head, desk.enrol(claims).await?))
}
