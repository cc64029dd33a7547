//! Whose certificate a link has: the names in it, which stand for hosts and what they are.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};

use super::expiry::expiry;
use crate::id::HostUid;

/// What every name in a cluster's certificates ends with.
pub(crate) const DOMAIN: &str = "roadshow";

/// What a process of a cluster is, as the cluster's authority has certified.
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Head, Self::Agent, Self::Worker, Self::Driver];

    /// The name that a certificate has for the role alone.
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

/// The name that a certificate has for a host, whatever its role: who dials a host need not know that.
#[must_use]
pub fn host_name(host: HostUid) -> String {
    let HostUid { host, incarnation } = host;
    format!("h{host}-{incarnation}.{DOMAIN}")
}

/// The name that a certificate has for a host in its role.
#[must_use]
pub fn host_name_as(host: HostUid, role: Role) -> String {
    let HostUid { host, incarnation } = host;
    format!("h{host}-{incarnation}.{role}.{DOMAIN}")
}

/// A certificate that the other side of a link has proved to be its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<CertificateDer<'static>>);

impl Certificate {
    /// The certificate with this DER encoding, which is that of a verified chain.
    pub(crate) fn verified(der: CertificateDer<'_>) -> Self {
        Self(Arc::new(der.into_owned()))
    }

    /// Whether it has this name.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(&*self.0), ServerName::try_from(name))
        else {
            return false;
        };
        verify_server_name(&parsed, &name).is_ok()
    }

    /// When it ceases to be valid; `None` if that cannot be read.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        expiry(&self.0)
    }

    /// What this host is, if the certificate is the host's.
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
