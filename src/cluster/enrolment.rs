//! How a process becomes a member: it shows the head that it knows the token, and gets a certificate.

use std::net::SocketAddr;

use thiserror::Error;

use super::desk::{DeskClient, DeskError};
use super::trust::{CertificateRequest, Claims, RequestError, Token};
use crate::id::Identity;
use crate::transport::{Credentials, CredentialsError, Route};

/// What a member has.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) credentials: Credentials,
    /// The head's host, in its present life.
    pub(super) head: Identity,
}

/// Why a process is no member.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The head's desk.
    #[error("{0}")]
    Desk(#[from] DeskError),
    /// No certificate could be asked for.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// What came is of no use.
    #[error("{0}")]
    Credentials(#[from] CredentialsError),
}

impl EnrolError {
    /// Whether asking again would end the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Desk(error) => error.is_refusal(),
            _ => true,
        }
    }
}

/// Enrols with the head at that address.
pub(super) async fn enrol(head: SocketAddr, token: &Token, claims: Claims) -> Result<Enrolled, EnrolError> {
    let request = CertificateRequest::new()?;
    let mut desk = DeskClient::connect(head, Route::HeadDesk, token).await?;
    let enrolled = desk.enrol(request.csr(), &claims).await?;
    Ok(Enrolled { credentials: request.credentials(enrolled.chain)?, head: enrolled.head })
}
