//! Messages of the token RPC, in MessagePack, each in a frame of its own.

use rustls::ConnectionCommon;
use serde::{Deserialize, Serialize};

use crate::cluster::security::Claims;
use crate::id::HostUid;

/// Version of the token RPC.
pub(in crate::cluster) const VERSION: u16 = 2;

// The labels below are part of the protocol: they stay as they are when the code renames things.

/// HMAC label of the client's proof. The labels of the two sides differ, so a proof cannot be reflected.
pub(in crate::cluster) const CLIENT: &[u8] = b"roadshow token rpc client";
/// HMAC label of the server's proof.
pub(in crate::cluster) const SERVER: &[u8] = b"roadshow token rpc server";

/// Channel binding of a TLS connection: its exported keying material (RFC 8446, section 7.5).
pub(in crate::cluster) fn binding<Side>(
    connection: &ConnectionCommon<Side>,
) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], b"EXPORTER-roadshow-token-rpc", None)
}

/// First message of the client.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) struct AuthRequest {
    pub(in crate::cluster) version: u16,
    pub(in crate::cluster) proof: Vec<u8>,
}

/// Reply to [`AuthRequest`].
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum AuthReply {
    Welcome { proof: Vec<u8> },
    Refused(AuthRefusal),
}

/// Reason for which the server rejects an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster) enum AuthRefusal {
    /// The client's proof does not verify.
    Secret,
    /// The client speaks another version.
    Version { ours: u16 },
    /// The server has reached its connection limit.
    Busy,
}

/// Request of an authenticated client.
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum TokenRequest<Q> {
    Enrol {
        csr: Vec<u8>,
        claims: Claims,
    },
    /// Rejoin with the certificate that the client presented in the TLS handshake.
    Return {
        claims: Claims,
    },
    Service(Q),
}

/// Reply to a [`TokenRequest`].
#[derive(Serialize, Deserialize)]
pub(in crate::cluster) enum TokenReply<A> {
    Enrolled(Enrolled),
    Returned(Returned),
    /// The client presented no certificate, or one that is not fresh: it must enrol.
    Stale,
    Service(A),
    Refused {
        text: String,
    },
}

/// Result of an enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    /// Certificates of the process and of the authority, in DER.
    pub chain: Vec<Vec<u8>>,
    /// Present incarnation of the head.
    pub head: HostUid,
    /// Name of the cluster.
    pub cluster: String,
}

/// Result of a rejoin: the process continues with the certificate that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Returned {
    /// Present incarnation of the head.
    pub head: HostUid,
    /// Name of the cluster.
    pub cluster: String,
}
