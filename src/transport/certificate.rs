//! Certificates of links, and the names in them that stand for hosts and roles.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};

use super::expiry::expiry;
use crate::id::HostUid;

/// Suffix of all names in a cluster's certificates.
pub(crate) const DOMAIN: &str = "roadshow";

/// Role of a process in its cluster, certified by the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The control plane.
    Head,
    /// The daemon of a node.
    Agent,
    /// A process that hosts actors and runs tasks.
    Worker,
    /// A user's program.
    Driver,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Head, Self::Agent, Self::Worker, Self::Driver];

    /// Returns the certificate name of the role alone.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self}.{DOMAIN}")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Agent => "agent",
            Self::Worker => "worker",
            Self::Driver => "driver",
        })
    }
}

/// Returns the certificate name of a host, independent of its role, which a dialler need not know.
#[must_use]
pub fn host_name(host: HostUid) -> String {
    let HostUid { host, incarnation } = host;
    format!("h{host}-{incarnation}.{DOMAIN}")
}

/// Returns the certificate name of a host in its role.
#[must_use]
pub fn host_name_as(host: HostUid, role: Role) -> String {
    let HostUid { host, incarnation } = host;
    format!("h{host}-{incarnation}.{role}.{DOMAIN}")
}

/// Certificate that the other side of a link has authenticated.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<CertificateDer<'static>>);

impl Certificate {
    /// Creates a certificate from the DER encoding of the first one in a verified chain.
    pub(crate) fn verified(der: CertificateDer<'_>) -> Self {
        Self(Arc::new(der.into_owned()))
    }

    /// Returns whether the certificate has this name.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(&*self.0), ServerName::try_from(name))
        else {
            return false;
        };
        // The verification of rustls, so that names are compared as in the TLS handshake itself.
        verify_server_name(&parsed, &name).is_ok()
    }

    /// Returns the end of the validity; `None` if it is unreadable.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        expiry(&self.0)
    }

    /// Returns the role of `host`, if the certificate belongs to it.
    #[must_use]
    pub fn role_of(&self, host: HostUid) -> Option<Role> {
        Role::ALL.into_iter().find(|role| self.is_for(&host_name_as(host, *role)))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(..)")
    }
}
