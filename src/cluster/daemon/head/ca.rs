//! The authority of a cluster: the key that signs its certificates, in the head's state directory.

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

/// Of a directory: nobody else has any business in it.
const DIRECTORY_MODE: u32 = 0o700;
/// Of a file.
const FILE_MODE: u32 = 0o600;
/// The bits of a file's mode that let others read, write or run it.
const OTHERS: u32 = 0o077;
/// The bits of a directory's mode that let others put files into it.
const OTHERS_WRITE: u32 = 0o022;

/// Who signs the certificates of a cluster. Its head has it, and nobody else.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    token: Token,
    /// How long what it signs is valid.
    valid: Duration,
    /// Certificates that it has signed.
    #[cfg(test)]
    issued: std::sync::atomic::AtomicU64,
}

/// The authority cannot be had, or does not sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AuthorityError {
    /// A file of the state directory cannot be read or written.
    #[error("cannot use {path}: {error}; name another directory with --state-dir, or see to its permissions")]
    File {
        /// Which.
        path: PathBuf,
        /// The operating system's words.
        error: io::Error,
    },
    /// Others can read a secret.
    #[error(
        "others can read {path} (its mode is {mode:03o}), and whoever has it owns the cluster; run `chmod 600 \
         {path}`, or begin anew with another --state-dir if somebody may have read it"
    )]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others can replace a secret.
    #[error("others can write to {path} (its mode is {mode:03o}); run `chmod 700 {path}`")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file holds something else than it should.
    #[error(
        "{path} is damaged ({why}); restore the state directory from a backup, or begin anew with another"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A request is none, or is not signed by its key.
    #[error("the request for a certificate is not valid: {0}")]
    Request(rcgen::Error),
    /// A certificate is for some hosts, and not for very many.
    #[error("a certificate was asked for {count} hosts; it is for 1 to {CERTIFIED_HOSTS_MAX}")]
    Hosts {
        /// For how many.
        count: usize,
    },
    /// It cannot be signed.
    #[error("cannot sign a certificate: {0}")]
    Signing(rcgen::Error),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error)
    }
}

impl CertificateAuthority {
    /// The authority whose state is in that directory; a new one if there is none.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the files cannot be used, or are not as private as they must be.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, AuthorityError> {
        let state = StateDir::open(state_dir)?;
        let damaged = |file, why: String| AuthorityError::Damaged { path: state.path(file), why };
        let key = state.secret(KEY_FILE, || Ok(KeyPair::generate()?.serialize_der()))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key))
            .map_err(|error| damaged(KEY_FILE, error.to_string()))?;
        let digest = digest_of_key(&key.subject_public_key_info());
        let token = state.secret(TOKEN_FILE, || Ok(format!("{}\n", Token::new(digest)).into_bytes()))?;
        let token: Token = String::from_utf8_lossy(&token)
            .parse()
            .map_err(|error: TokenError| damaged(TOKEN_FILE, error.to_string()))?;
        if *token.authority() != digest {
            return Err(damaged(TOKEN_FILE, "it is of another authority".to_owned()));
        }
        let certificate = state.secret(CERTIFICATE_FILE, || certify_itself(&key))?;
        let der = CertificateDer::from(certificate.clone());
        if digest_of_authority(&der) != Some(digest) {
            return Err(damaged(CERTIFICATE_FILE, "it is not of this authority's key".to_owned()));
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

    /// The same, whose certificates are valid for so long.
    pub(crate) fn valid_for(self, valid: Duration) -> Self {
        Self { valid, ..self }
    }

    /// What the cluster is called: the first digits of its authority's digest.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        short(self.token.authority())
    }

    /// The token that lets processes into the cluster.
    #[must_use]
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// Its own certificate, in DER.
    #[cfg(test)]
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Certifies what a process claims to be; gives its certificate and that of the authority, in DER.
    ///
    /// Whether the claims are true is the caller's to know. What the request says beside its key is ignored.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the request is not signed by its key, or there are no hosts or too many.
    pub(crate) fn issue(&self, csr: &[u8], claims: &Claims) -> Result<Vec<Vec<u8>>, AuthorityError> {
        self.issue_at(SystemTime::now(), csr, claims)
    }

    /// Somebody who has the authority's certificate, which is no secret, and another key.
    #[cfg(test)]
    pub(crate) fn foreign_chain(&self) -> Self {
        let key = KeyPair::generate().expect("the operating system gives random numbers");
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(&self.certificate[..]), key)
            .expect("the certificate was made here");
        let (certificate, token) = (self.certificate.clone(), self.token.clone());
        Self { issuer, certificate, token, valid: self.valid, issued: Default::default() }
    }

    /// The number of certificates that it has signed.
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
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(AuthorityError::Request)?;
        let mut params = CertificateParams::new(claims.names())?;
        params.distinguished_name = common_name(&format!("roadshow {}", claims.role));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        valid(&mut params, now, self.valid);
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        #[cfg(test)]
        self.issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(vec![certificate.der().to_vec(), self.certificate.clone()])
    }
}

/// The certificate that an authority gives itself.
/// The first digits of a key's digest.
fn short(digest: &KeyDigest) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn certify_itself(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    let digest = digest_of_key(&key.subject_public_key_info());
    let short = short(&digest);
    // Two clusters are told apart by it.
    params.distinguished_name = common_name(&format!("roadshow authority {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(random_serial());
    valid(&mut params, SystemTime::now(), AUTHORITY_VALID);
    Ok(params.self_signed(key)?.der().to_vec())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn valid(params: &mut CertificateParams, now: SystemTime, valid: Duration) {
    // A clock before 1970 is wrong, and whoever looks at the certificate says so.
    let now =
        rcgen::date_time_ymd(1970, 1, 1) + now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - CERTIFICATE_SKEW;
    params.not_after = now + valid;
}

fn random_serial() -> SerialNumber {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).expect("the operating system gives random numbers");
    // A serial number is positive.
    serial[0] &= 0x7f;
    SerialNumber::from_slice(&serial)
}

/// The directory that a head's state is in, and what of it is secret.
struct StateDir(PathBuf);

impl StateDir {
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

    /// What a file holds that nobody else may read; made by `make` if it is not there.
    fn secret(
        &self,
        file: &str,
        make: impl FnOnce() -> Result<Vec<u8>, rcgen::Error>,
    ) -> Result<Vec<u8>, AuthorityError> {
        let path = self.path(file);
        let read = match self.read(&path) {
            Err(AuthorityError::File { error, .. }) if error.kind() == ErrorKind::NotFound => None,
            read => Some(read?),
        };
        if let Some(read) = read {
            return Ok(read);
        }
        let made = make()?;
        self.write(&path, &made).map_err(|error| AuthorityError::File { path, error })?;
        Ok(made)
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

    /// Writes a file that is there whole or not at all, whenever the machine stops.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        // One that was left behind may be somebody else's.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.0)?.sync_all()
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}
