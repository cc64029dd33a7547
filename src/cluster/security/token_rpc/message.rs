//! What is said at a desk, in MessagePack; each message in a frame of its own.

use rustls::ConnectionCommon;
use serde::{Deserialize, Serialize};

use crate::cluster::security::Claims;
use crate::id::HostUid;

/// Version of the token RPC.
pub(in crate::cluster) const VERSION: u16 = 2;

/// Each side's proof has a label of its own, so that none can be sent back.
pub(in crate::cluster) const CLIENT: &[u8] = b"roadshow desk client";
/// The server's.
pub(in crate::cluster) const SERVER: &[u8] = b"roadshow desk server";

/// What stands for a connection under TLS, and cannot be had for another (RFC 8446, section 7.5).
pub(in crate::cluster) fn binding<Side>(
    connection: &ConnectionCommon<Side>,
) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], b"EXPORTER-roadshow-desk", None)
}

/// The client's first word.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) struct AuthRequest {
    pub(in crate::cluster) version: u16,
    pub(in crate::cluster) proof: Vec<u8>,
}

/// What it leads to.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum AuthReply {
    Welcome { proof: Vec<u8> },
    Refused(Refusal),
}

/// Why the client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster) enum Refusal {
    /// Its proof does not hold.
    Secret,
    /// It speaks another version.
    Version { ours: u16 },
    /// There are too many others.
    Busy,
}

/// What a client that has proved itself wants.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum TokenRequest<Q> {
    Enrol {
        csr: Vec<u8>,
        claims: Claims,
    },
    /// To be taken back with the certificate that it has shown.
    Return {
        claims: Claims,
    },
    Service(Q),
}

/// What it gets.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum TokenReply<A> {
    Enrolled(Enrolled),
    Returned(Returned),
    /// The certificate that was shown does not do, if there was one: another is needed.
    Stale,
    Service(A),
    Refused {
        text: String,
    },
}

/// What a process that was enrolled gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    /// Its certificate and the authority's, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The head, in its present life.
    pub head: HostUid,
    /// What the cluster is called.
    pub cluster: String,
}

/// What a process that comes back gets: it goes on with the certificate that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Returned {
    /// The head, in its present life.
    pub head: HostUid,
    /// What the cluster is called.
    pub cluster: String,
}
