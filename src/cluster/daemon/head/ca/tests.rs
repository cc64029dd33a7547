//! Files of a certificate authority, and the content of its certificates.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::{AuthorityError, CertificateAuthority};
use crate::cluster::daemon::test_ca::{TestCa, claims};
use crate::cluster::model::{JobId, NodeId};
use crate::cluster::security::claims::{ClaimsError, job_name, node_name};
use crate::cluster::security::{CertificateRequest, Claims, Token, digest_of_authority, sequence};
use crate::cluster::test_dir::TestDir;
use crate::host::fresh_identity;
use crate::id::{HostId, HostUid, Incarnation};
use crate::transport::{Certificate, Credentials, CredentialsError, Role, Routed, host_name, host_name_as};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn authority_is_the_same_after_a_restart() {
    let dir = TestDir::new();
    let state = dir.join("state");
    let first = CertificateAuthority::open(&state).unwrap();
    let second = CertificateAuthority::open(&state).unwrap();
    assert!(first.token() == second.token());
    assert_eq!(first.certificate(), second.certificate());
    let der = CertificateDer::from(first.certificate());
    assert_eq!(digest_of_authority(&der).as_ref(), Some(first.token().authority()));
    assert_eq!(first.token().to_string().parse(), Ok(second.token().clone()));
}

#[test]
fn two_authorities_share_no_secret() {
    let (one, other) = (TestCa::new(), TestCa::new());
    assert!(one.authority.token() != other.authority.token());
    assert!(one.authority.token().session_secret() != other.authority.token().session_secret());
}

#[test]
fn other_users_cannot_read_the_state_of_an_authority() {
    let dir = TestDir::new();
    let state = dir.join("state");
    CertificateAuthority::open(&state).unwrap();
    assert_eq!(mode(&state), 0o700);
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[test]
fn key_that_others_can_read_is_refused_with_a_next_step() {
    for file in ["authority.key", "token"] {
        let dir = TestDir::new();
        let state = dir.join("state");
        CertificateAuthority::open(&state).unwrap();
        set_mode(&state.join(file), 0o640);
        let error = CertificateAuthority::open(&state).unwrap_err();
        assert!(matches!(error, AuthorityError::ReadableByOthers { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains("run `chmod 600 "), "{error}");
        set_mode(&state.join(file), 0o600);
        CertificateAuthority::open(&state).unwrap();
    }
}

#[test]
fn directory_that_others_can_write_to_is_refused() {
    let dir = TestDir::new();
    let state = dir.join("state");
    CertificateAuthority::open(&state).unwrap();
    set_mode(&state, 0o770);
    let error = CertificateAuthority::open(&state).unwrap_err();
    assert!(matches!(error, AuthorityError::Writable { mode: 0o770, .. }), "{error}");
    assert!(error.to_string().contains("run `chmod 700 "), "{error}");
}

#[test]
fn leftovers_of_a_crash_do_not_matter() {
    let dir = TestDir::new();
    let state = dir.join("state");
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    fs::write(state.join("authority.new"), b"half a k").unwrap();
    let token = CertificateAuthority::open(&state).unwrap().token().clone();
    // A crash right after the key was written.
    fs::remove_file(state.join("authority.crt")).unwrap();
    assert!(*CertificateAuthority::open(&state).unwrap().token() == token);
    assert_eq!(mode(&state.join("authority.key")), 0o600);
}

#[test]
fn files_of_different_authorities_are_reported_as_damage() {
    let dir = TestDir::new();
    let (state, other) = (dir.join("state"), dir.join("other"));
    CertificateAuthority::open(&state).unwrap();
    CertificateAuthority::open(&other).unwrap();
    for file in ["token", "authority.crt"] {
        let own = fs::read(state.join(file)).unwrap();
        for wrong in [fs::read(other.join(file)).unwrap(), b"nonsense".to_vec()] {
            fs::write(state.join(file), wrong).unwrap();
            let error = CertificateAuthority::open(&state).unwrap_err();
            assert!(matches!(error, AuthorityError::Damaged { .. }), "{error}");
        }
        fs::write(state.join(file), own).unwrap();
        CertificateAuthority::open(&state).unwrap();
    }
    fs::write(state.join("authority.key"), b"nonsense").unwrap();
    let error = CertificateAuthority::open(&state).unwrap_err();
    assert!(matches!(error, AuthorityError::Damaged { .. }), "{error}");
}

#[test]
fn certificate_has_exactly_the_claimed_names() {
    let ca = TestCa::new();
    let [one, two, other] = [1, 2, 3].map(|n| HostUid { host: HostId(n << 60), incarnation: Incarnation(n) });
    let (job, node) = (JobId(7), NodeId(9));
    let claims = Claims { role: Role::Worker, hosts: vec![one, two], job: Some(job), node: Some(node) };
    let request = CertificateRequest::new().unwrap();
    let chain = ca.authority.issue(request.csr(), &claims).unwrap();
    let certificate = Certificate::verified(CertificateDer::from(&chain[0][..]));
    for name in [
        host_name(one),
        host_name(two),
        host_name_as(one, Role::Worker),
        host_name_as(two, Role::Worker),
        job_name(job, Role::Worker),
        node_name(node, Role::Worker),
        Role::Worker.name(),
    ] {
        assert!(certificate.is_for(&name), "{name}");
    }
    let later = HostUid { incarnation: Incarnation(2), ..one };
    for name in [
        host_name(other),
        host_name(later),
        host_name_as(one, Role::Head),
        job_name(JobId(8), Role::Worker),
        job_name(job, Role::Driver),
        node_name(NodeId(8), Role::Worker),
        Role::Agent.name(),
        "roadshow".to_owned(),
        "no name".to_owned(),
    ] {
        assert!(!certificate.is_for(&name), "{name}");
    }
    assert_eq!(certificate.role_of(two), Some(Role::Worker));
    assert_eq!(certificate.role_of(other), None);
    assert_eq!(host_name_as(one, Role::Worker), "h1000000000000000-1.worker.roadshow");
}

#[test]
fn malformed_request_is_not_signed() {
    let ca = TestCa::new();
    let claims = claims(Role::Driver, fresh_identity());
    let mut csr = CertificateRequest::new().unwrap().csr().to_vec();
    assert!(matches!(ca.authority.issue(b"nonsense", &claims), Err(AuthorityError::Request(_))));
    // The signature is the last field. It proves that the requester has the private key.
    *csr.last_mut().unwrap() ^= 1;
    assert!(matches!(ca.authority.issue(&csr, &claims), Err(AuthorityError::Request(_))));
    let no_hosts = Claims { hosts: vec![], ..claims.clone() };
    let error = ca.authority.issue(CertificateRequest::new().unwrap().csr(), &no_hosts).unwrap_err();
    assert!(matches!(error, AuthorityError::Hosts { count: 0 }), "{error}");
}

#[test]
fn token_admits_only_agents_and_drivers() {
    let me = fresh_identity();
    assert_eq!(claims(Role::Agent, me).check_claimable(), Ok(()));
    assert_eq!(claims(Role::Driver, me).check_claimable(), Ok(()));
    for role in [Role::Head, Role::Worker] {
        assert_eq!(claims(role, me).check_claimable(), Err(ClaimsError::Role { role }));
    }
    let head = HostUid { host: HostId::HEAD, ..me };
    assert_eq!(claims(Role::Agent, head).check_claimable(), Err(ClaimsError::Head));
    let too_many = Claims { hosts: vec![me; 17], ..claims(Role::Agent, me) };
    assert_eq!(too_many.check_claimable(), Err(ClaimsError::Hosts { count: 17 }));
}

#[test]
fn credentials_survive_encoding() {
    let (ca, me) = (TestCa::new(), fresh_identity());
    let credentials = ca.credentials(Role::Worker, me);
    let bytes = rmp_serde::to_vec(&credentials).unwrap();
    let arrived: Credentials = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(arrived.authority(), ca.authority.certificate());
    assert_eq!(rmp_serde::to_vec(&arrived).unwrap(), bytes);
}

#[test]
fn mismatched_credentials_are_refused() {
    let (ca, other, me) = (TestCa::new(), TestCa::new(), fresh_identity());
    let request = CertificateRequest::new().unwrap();
    let chain = ca.authority.issue(request.csr(), &claims(Role::Driver, me)).unwrap();
    let error = CertificateRequest::new().unwrap().credentials(chain.clone()).unwrap_err();
    assert!(matches!(error, CredentialsError::Unusable(_)), "{error}");
    let error = CertificateRequest::new().unwrap().credentials(chain[..1].to_vec()).unwrap_err();
    assert!(matches!(error, CredentialsError::Chain { count: 1 }), "{error}");
    let credentials = request.credentials(chain).unwrap();
    let request = CertificateRequest::new().unwrap();
    let chain = other.authority.issue(request.csr(), &claims(Role::Driver, me)).unwrap();
    let error = request.renew(&credentials, chain).unwrap_err();
    assert!(matches!(error, CredentialsError::OtherAuthority), "{error}");
}

#[test]
fn keys_and_secrets_do_not_show_in_debug_output() {
    let ca = TestCa::new();
    let credentials = ca.credentials(Role::Agent, fresh_identity());
    let request = CertificateRequest::new().unwrap();
    assert_eq!(format!("{:?}", ca.authority), "CertificateAuthority(..)");
    assert_eq!(format!("{:?}", ca.authority.token()), "Token(..)");
    assert_eq!(format!("{:?}", ca.authority.token().session_secret()), "Secret(..)");
    assert_eq!(format!("{credentials:?}"), "Credentials(..)");
    assert_eq!(format!("{request:?}"), "CertificateRequest(..)");
    assert_eq!(format!("{:?}", Routed::dial_only(credentials)), "Routed { address: None, .. }");
    // An error about a token does not repeat the token.
    let mistyped = ca.authority.token().to_string().replace("rs1_", "rs1_a");
    let error = mistyped.parse::<Token>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&mistyped[8..16]));
}

#[test]
fn sequence_length_is_encoded_as_der() {
    assert_eq!(sequence(&[7]), [0x30, 1, 7]);
    assert_eq!(sequence(&[7; 127])[..3], [0x30, 127, 7]);
    assert_eq!(sequence(&[7; 128])[..4], [0x30, 0x81, 128, 7]);
    assert_eq!(sequence(&[7; 300])[..5], [0x30, 0x82, 1, 44, 7]);
}
