//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::iter;
use std::net::SocketAddr;

use super::desk::{DeskClient, DeskError, DeskOf, Enrolment};
use super::trust::{Claims, Token};
use crate::id::Identity;
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

/// Whether a process that comes back to the head needs another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The next certificate is due.
    Due,
    /// If the one that it has is not fresh any more.
    IfStale,
}

/// The head that a process has come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Back {
    /// Which of its addresses has answered.
    pub(super) head_at: SocketAddr,
    /// In its present life.
    pub(super) head: Identity,
    /// Whether the process has another certificate now.
    pub(super) renewed: bool,
}

/// Comes back to the head at one of these addresses, as the process whose certificate this is. The address `last`
/// had the head before, and is tried first.
///
/// A fresh certificate is kept: after a restart of the head thousands come back, and each signature is work for the
/// one head. Where the head asks for it, or `renewal` says so, the process is certified anew. Its certificate may
/// have expired: the desk takes it all the same, and the head certifies nobody else for its hosts while the process
/// lives.
///
/// # Errors
///
/// [`DeskError`] if no head answers, or it does not take the process back.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(super) async fn come_back(
    heads: &[SocketAddr],
    last: SocketAddr,
    token: &Token,
    claims: &Claims,
    credentials: &Credentials,
    renewal: Renewal,
) -> Result<Back, DeskError> {
    let others = heads.iter().copied().filter(|head| *head != last);
    let heads: Vec<_> = iter::once(last).chain(others).collect();
    let connected = DeskClient::connect_any(Some(credentials), &heads, DeskOf::Head, token).await;
    let (head_at, mut desk) = connected?;
    if renewal == Renewal::IfStale
        && credentials.is_fresh()
        && let Some(returned) = desk.come_back(claims).await?
    {
        return Ok(Back { head_at, head: returned.head, renewed: false });
    }
    let enrolled = desk.enrol(claims).await?;
    credentials.renew(&enrolled.credentials)?;
    Ok(Back { head_at, head: enrolled.head, renewed: true })
}
