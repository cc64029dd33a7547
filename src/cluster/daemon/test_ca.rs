//! Certificate authority for tests that need credentials.

use std::time::{Duration, SystemTime};

use super::head::ca::CertificateAuthority;
use crate::cluster::security::{CertificateRequest, Claims};
use crate::cluster::test_dir::TestDir;
use crate::config::CERTIFICATE_VALID;
use crate::id::HostUid;
use crate::transport::{Credentials, Role};

/// Certificate authority of a test, and the credentials that it issues.
pub(crate) struct TestCa {
    _dir: TestDir,
    pub(crate) authority: CertificateAuthority,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let dir = TestDir::new();
        let authority = CertificateAuthority::open(&dir.join("ca")).unwrap();
        Self { _dir: dir, authority }
    }

    pub(crate) fn credentials(&self, role: Role, host: HostUid) -> Credentials {
        credentials(&self.authority, SystemTime::now(), role, host)
    }

    /// Issues credentials that expired a minute ago.
    pub(crate) fn expired(&self, role: Role, host: HostUid) -> Credentials {
        let issued = SystemTime::now() - CERTIFICATE_VALID - Duration::from_secs(60);
        credentials(&self.authority, issued, role, host)
    }

    /// Issues credentials that expire after `valid`.
    pub(crate) fn ending_in(&self, valid: Duration, role: Role, host: HostUid) -> Credentials {
        credentials(&self.authority, SystemTime::now() + valid - CERTIFICATE_VALID, role, host)
    }

    /// Issues credentials of another authority with the same name.
    pub(crate) fn imitated(&self, role: Role, host: HostUid) -> Credentials {
        credentials(&self.authority.foreign_chain(), SystemTime::now(), role, host)
    }

    /// Replaces credentials in place by a new certificate and key.
    pub(crate) fn renew(&self, old: &Credentials, role: Role, host: HostUid) {
        let request = CertificateRequest::new().unwrap();
        let chain = self.authority.issue(request.csr(), &claims(role, host)).unwrap();
        request.renew(old, chain).unwrap();
    }
}

pub(crate) fn claims(role: Role, host: HostUid) -> Claims {
    Claims { role, hosts: vec![host], job: None, node: None }
}

fn credentials(
    authority: &CertificateAuthority,
    issued: SystemTime,
    role: Role,
    host: HostUid,
) -> Credentials {
    let request = CertificateRequest::new().unwrap();
    let chain = authority.issue_at(issued, request.csr(), &claims(role, host)).unwrap();
    request.credentials(chain).unwrap()
}
