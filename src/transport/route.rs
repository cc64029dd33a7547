//! Preamble of a connection to a node's port: the process that it is routed to.

use thiserror::Error;

use crate::id::HostId;

/// Length of the preamble in bytes.
pub const PREAMBLE_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"RDRT";
const VERSION: u16 = 1;

/// Destination of a connection to a node's port, which several processes share.
///
/// The preamble proves nothing: it only selects the process that authenticates the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Token RPC of the head, for enrolment and operators.
    HeadTokenRpc,
    /// Token RPC of the node's agent.
    AgentTokenRpc,
    /// A host of the node.
    Host(HostId),
}

/// Reason why a preamble is invalid.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteError {
    /// The connection uses another protocol.
    #[error(
        "a connection does not start with a roadshow preamble; check which program connects to this port"
    )]
    NotRoadshow,
    /// The preamble has another version.
    #[error(
        "a connection has version {theirs} of the preamble and this node {VERSION}; run the same release on both"
    )]
    Version {
        /// Version of the connection.
        theirs: u16,
    },
    /// The preamble has no valid destination.
    #[error("a connection has no valid destination: its kind is {kind} and its id {id:016x}")]
    Malformed {
        /// Number of the kind.
        kind: u16,
        /// Id of the destination.
        id: u64,
    },
}

impl Route {
    /// Returns the first bytes of a connection with this route.
    ///
    /// Layout: magic 4, version 2, kind 2, id 8.
    #[must_use]
    pub fn preamble(self) -> [u8; PREAMBLE_BYTES] {
        let (kind, id) = match self {
            Self::HeadTokenRpc => (1_u16, 0),
            Self::AgentTokenRpc => (2, 0),
            Self::Host(HostId(id)) => (3, id),
        };
        let mut preamble = [0; PREAMBLE_BYTES];
        preamble[..4].copy_from_slice(&MAGIC);
        preamble[4..6].copy_from_slice(&VERSION.to_be_bytes());
        preamble[6..8].copy_from_slice(&kind.to_be_bytes());
        preamble[8..].copy_from_slice(&id.to_be_bytes());
        preamble
    }

    /// Decodes a preamble.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if the preamble is invalid.
    pub fn read(preamble: [u8; PREAMBLE_BYTES]) -> Result<Self, RouteError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, id @ ..] = preamble;
        // The magic comes before the version, so that a stranger is not reported as an old release.
        if [m0, m1, m2, m3] != MAGIC {
            return Err(RouteError::NotRoadshow);
        }
        let theirs = u16::from_be_bytes([v0, v1]);
        if theirs != VERSION {
            return Err(RouteError::Version { theirs });
        }
        match (u16::from_be_bytes([k0, k1]), u64::from_be_bytes(id)) {
            // The id must be zero: another value may get a meaning in a later version.
            (1, 0) => Ok(Self::HeadTokenRpc),
            (2, 0) => Ok(Self::AgentTokenRpc),
            (3, id) => Ok(Self::Host(HostId(id))),
            (kind, id) => Err(RouteError::Malformed { kind, id }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [(Route, &str); 3] = [
        (Route::HeadTokenRpc, "5244525400010001 0000000000000000"),
        (Route::AgentTokenRpc, "5244525400010002 0000000000000000"),
        (Route::Host(HostId(0x0102_0304_0506_0708)), "5244525400010003 0102030405060708"),
    ];

    #[test]
    fn every_route_has_its_golden_bytes() {
        for (route, golden) in ROUTES {
            let hex: String = route.preamble().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden.replace(' ', ""), "{route:?}");
            assert_eq!(Route::read(route.preamble()), Ok(route));
        }
    }

    #[test]
    fn invalid_preambles_are_distinguished() {
        assert_eq!(Route::read(*b"GET / HTTP/1.1\r\n"), Err(RouteError::NotRoadshow));
        let with = |at: usize, byte: u8| {
            let mut preamble = Route::HeadTokenRpc.preamble();
            preamble[at] = byte;
            Route::read(preamble)
        };
        assert_eq!(with(5, 2), Err(RouteError::Version { theirs: 2 }));
        assert_eq!(with(7, 4), Err(RouteError::Malformed { kind: 4, id: 0 }));
        assert_eq!(with(15, 1), Err(RouteError::Malformed { kind: 1, id: 1 }));
    }
}
