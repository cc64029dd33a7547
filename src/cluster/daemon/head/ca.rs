//! Certificate authority of a cluster, with its files in the head's state directory.
//!
//! | file | content |
//! |---|---|
//! | `authority.key` | private key, PKCS #8 |
//! | `authority.crt` | self-signed certificate, DER |
//! | `token` | cluster token: digest of the key, and the secret of the sessions |
//!
//! Missing files are created in the order key, token, certificate, and the last two are bound to the key. After a
//! crash in between the next start creates the rest.

#[cfg(all(test, feature = "cli"))]
pub(crate) mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::cluster::security::token::{Token, TokenError};
use crate::cluster::security::{Claims, KeyDigest, digest_of_authority, digest_of_key};
use crate::config::{AUTHORITY_VALID, CERTIFICATE_SKEW, CERTIFICATE_VALID, CERTIFIED_HOSTS_MAX};

const KEY_FILE: &str = "authority.key";
const CERTIFICATE_FILE: &str = "authority.crt";
const TOKEN_FILE: &str = "token";

/// Mode of the state directory: no access for other users.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of each file in it.
const FILE_MODE: u32 = 0o600;
/// Mode bits that let other users read, write or execute a file.
const OTHERS: u32 = 0o077;
/// Mode bits that let other users add files to a directory.
const OTHERS_WRITE: u32 = 0o022;

/// Certificate authority of a cluster. Only its head has the key.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    token: Token,
    /// Validity of the certificates that it issues.
    valid: Duration,
    /// Number of certificates that it has issued.
    #[cfg(test)]
    issued: std::sync::atomic::AtomicU64,
}

/// Error of the certificate authority: its files, a request, or a signature.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AuthorityError {
    /// A file of the state directory cannot be read or written.
    #[error("cannot use {path}: {error}; give another directory with --state-dir, or fix its permissions")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// Other users can read a secret.
    #[error(
        "others can read {path} (its mode is {mode:03o}), and its content gives control of the cluster; run \
         `chmod 600 {path}`, or give a new --state-dir if another user may have read it"
    )]
    ReadableByOthers {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// Other users can replace a secret.
    #[error("others can write to {path} (its mode is {mode:03o}); run `chmod 700 {path}`")]
    Writable {
        /// Path of the directory.
        path: PathBuf,
        /// Permission bits of the directory.
        mode: u32,
    },
    /// A file has unexpected content.
    #[error(
        "{path} is damaged ({why}); restore the state directory from a backup, or give a new --state-dir"
    )]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Description of the damage.
        why: String,
    },
    /// The request is malformed, or is not signed with its own key.
    #[error("the certificate request is not valid: {0}")]
    Request(rcgen::Error),
    /// The number of hosts is zero or above the limit.
    #[error("the certificate request names {count} hosts; the limit is 1 to {CERTIFIED_HOSTS_MAX}")]
    Hosts {
        /// Number of requested hosts.
        count: usize,
    },
    /// The name of a web server would prove a role in the cluster.
    #[cfg(feature = "dashboard")]
    #[error("a dashboard cannot have the host name {name}; give another --dashboard-host")]
    WebName {
        /// Host name that ends as those of roles do.
        name: String,
    },
    /// The certificate cannot be signed.
    #[error("cannot sign a certificate: {0}")]
    Signing(rcgen::Error),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error)
    }
}

impl CertificateAuthority {
    /// Opens the authority in a state directory, or creates it there.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the files cannot be used, or if other users can access them.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, AuthorityError> {
        let state = AuthorityDir::open(state_dir)?;
        let damaged = |file, why: String| AuthorityError::Damaged { path: state.path(file), why };
        let key = state.secret(KEY_FILE, || Ok(KeyPair::generate()?.serialize_der()))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key))
            .map_err(|error| damaged(KEY_FILE, error.to_string()))?;
        let digest = digest_of_key(&key.subject_public_key_info());
        let token = state.secret(TOKEN_FILE, || Ok(format!("{}\n", Token::new(digest)).into_bytes()))?;
        let token: Token = String::from_utf8_lossy(&token)
            .parse()
            .map_err(|error: TokenError| damaged(TOKEN_FILE, error.to_string()))?;
        // Clients check the head by this digest, so with a foreign token none would accept this head.
        if *token.authority() != digest {
            return Err(damaged(TOKEN_FILE, "it belongs to another authority".to_owned()));
        }
        let certificate = state.secret(CERTIFICATE_FILE, || self_sign(&key))?;
        let der = CertificateDer::from(certificate.clone());
        if digest_of_authority(&der) != Some(digest) {
            return Err(damaged(CERTIFICATE_FILE, "it does not match the authority's key".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|error| damaged(CERTIFICATE_FILE, error.to_string()))?;
        Ok(Self {
            issuer,
            certificate,
            token,
            valid: CERTIFICATE_VALID,
            #[cfg(test)]
            issued: Default::default(),
        })
    }

    /// Changes the validity of the certificates that it issues.
    pub(crate) fn valid_for(self, valid: Duration) -> Self {
        Self { valid, ..self }
    }

    /// Name of the cluster: the first hex digits of its authority's key digest.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        short(self.token.authority())
    }

    /// Token that admits processes to the cluster.
    #[must_use]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// Certificate of the authority itself, in DER.
    #[cfg(test)]
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Issues a certificate for the claims of a process, and returns its chain: that certificate and the
    /// authority's, both in DER.
    ///
    /// The caller must have checked the claims. Only the key of the request is used: a requester cannot choose its
    /// own names or extensions.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the request is not signed with its own key, or names no hosts or too many.
    pub(crate) fn issue(&self, csr: &[u8], claims: &Claims) -> Result<Vec<Vec<u8>>, AuthorityError> {
        self.issue_at(SystemTime::now(), csr, claims)
    }

    /// Issues a certificate for a web server with these host names or addresses. It proves no role in the cluster.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the request is not signed with its own key, or a name would prove a role.
    #[cfg(feature = "dashboard")]
    pub(crate) fn issue_web(&self, csr: &[u8], names: &[String]) -> Result<Vec<Vec<u8>>, AuthorityError> {
        // Roles and hosts of the cluster are names below this one.
        if let Some(name) =
            names.iter().find(|name| name.to_ascii_lowercase().trim_end_matches('.').ends_with(".roadshow"))
        {
            return Err(AuthorityError::WebName { name: name.clone() });
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("roadshow dashboard");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(SystemTime::now(), csr, params)
    }

    /// Attacker's authority: it has this authority's certificate, which is public, and another key.
    #[cfg(test)]
    pub(crate) fn foreign_chain(&self) -> Self {
        let key = KeyPair::generate().expect("the operating system gives random numbers");
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(&self.certificate[..]), key)
            .expect("the certificate was made here");
        let (certificate, token) = (self.certificate.clone(), self.token.clone());
        Self { issuer, certificate, token, valid: self.valid, issued: Default::default() }
    }

    /// Number of certificates that it has issued.
    #[cfg(test)]
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn issue_at(
        &self,
        now: SystemTime,
        csr: &[u8],
        claims: &Claims,
    ) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let count = claims.hosts.len();
        if count == 0 || count > CERTIFIED_HOSTS_MAX {
            return Err(AuthorityError::Hosts { count });
        }
        let mut params = CertificateParams::new(claims.names())?;
        params.distinguished_name = common_name(&format!("roadshow {}", claims.role));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(now, csr, params)
    }

    /// Signs a certificate with these parameters and the key of the request.
    fn sign(
        &self,
        now: SystemTime,
        csr: &[u8],
        mut params: CertificateParams,
    ) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(AuthorityError::Request)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Several authorities may have the same name, as an attacker's has. The key identifier tells them apart.
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        set_validity(&mut params, now, self.valid);
        // Only the key of the request is used: its names and extensions are the requester's own choice.
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        #[cfg(test)]
        self.issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(vec![certificate.der().to_vec(), self.certificate.clone()])
    }
}

/// First 16 hex digits of a key's digest.
fn short(digest: &KeyDigest) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Creates the self-signed certificate of an authority.
fn self_sign(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    let digest = digest_of_key(&key.subject_public_key_info());
    let short = short(&digest);
    // TLS libraries select the issuer by its name, so the name must differ between clusters.
    params.distinguished_name = common_name(&format!("roadshow authority {short}"));
    // Path length 0: nothing that it signs can sign in turn.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(random_serial());
    set_validity(&mut params, SystemTime::now(), AUTHORITY_VALID);
    Ok(params.self_signed(key)?.der().to_vec())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, valid: Duration) {
    // A clock before 1970 is wrong. The certificate is then expired, and the verifier reports that.
    let now =
        rcgen::date_time_ymd(1970, 1, 1) + now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Backdated by the tolerated difference between two machines' clocks, else a slow clock rejects it as not
    // yet valid.
    params.not_before = now - CERTIFICATE_SKEW;
    params.not_after = now + valid;
}

fn random_serial() -> SerialNumber {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).expect("the operating system gives random numbers");
    // RFC 5280 wants a positive serial number: the first bit is the sign in DER.
    serial[0] &= 0x7f;
    SerialNumber::from_slice(&serial)
}

/// State directory of the authority, with its secret files.
struct AuthorityDir(PathBuf);

impl AuthorityDir {
    fn open(path: &Path) -> Result<Self, AuthorityError> {
        let state = Self(path.to_owned());
        let failed = |error| AuthorityError::File { path: path.to_owned(), error };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(failed)?;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & OTHERS_WRITE != 0 {
            return Err(AuthorityError::Writable { path: path.to_owned(), mode });
        }
        Ok(state)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Reads a secret file, and creates it with the content of `make` if it does not exist.
    fn secret(
        &self,
        file: &str,
        make: impl FnOnce() -> Result<Vec<u8>, rcgen::Error>,
    ) -> Result<Vec<u8>, AuthorityError> {
        let path = self.path(file);
        match self.read(&path) {
            Err(AuthorityError::File { error, .. }) if error.kind() == ErrorKind::NotFound => {}
            read => return read,
        }
        let content = make()?;
        self.write(&path, &content).map_err(|error| AuthorityError::File { path, error })?;
        Ok(content)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, AuthorityError> {
        let failed = |error| AuthorityError::File { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(AuthorityError::ReadableByOthers { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Creates a file atomically: after a crash it exists completely, or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        // A leftover may belong to another user, or have another mode. `create_new` below then starts afresh.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(bytes)?;
        // The content reaches the disk before the name does, else a crash could leave an empty file of that name.
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.0)?.sync_all()
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority(..)")
    }
}
