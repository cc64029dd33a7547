//! Where a connection to a node's port is to go: the bytes before all others.

use thiserror::Error;

use crate::id::HostId;

/// How long the preamble is.
pub const PREAMBLE_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"RDRT";
const VERSION: u16 = 1;

/// Whom a connection to a node's port is for. A node has one port, and several processes behind it.
///
/// Nothing is proved by it, and nothing follows from it but who is to ask for the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// The desk of the head, where processes enrol and operators ask.
    HeadTokenRpc,
    /// The desk of the node's agent.
    AgentTokenRpc,
    /// A host of the node.
    Host(HostId),
}

/// A connection does not begin as one to a node's port has to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteError {
    /// Another protocol.
    #[error("a connection did not begin as Roadshow's do; check who else uses the port")]
    NotRoadshow,
    /// Another version of this one.
    #[error(
        "a connection has version {theirs} of the preamble and this node {VERSION}; run the same release on both"
    )]
    Version {
        /// The version that came.
        theirs: u16,
    },
    /// No route has these bytes.
    #[error("a connection is for nobody: its kind is {kind} and its id {id:016x}")]
    Malformed {
        /// The number of the kind.
        kind: u16,
        /// The id.
        id: u64,
    },
}

impl Route {
    /// The bytes that a connection begins with.
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

    /// Whom these bytes mean.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if they mean nobody.
    pub fn read(preamble: [u8; PREAMBLE_BYTES]) -> Result<Self, RouteError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, id @ ..] = preamble;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(RouteError::NotRoadshow);
        }
        let theirs = u16::from_be_bytes([v0, v1]);
        if theirs != VERSION {
            return Err(RouteError::Version { theirs });
        }
        match (u16::from_be_bytes([k0, k1]), u64::from_be_bytes(id)) {
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
    fn every_route_has_the_bytes_that_the_protocol_says() {
        for (route, golden) in ROUTES {
            let hex: String = route.preamble().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden.replace(' ', ""), "{route:?}");
            assert_eq!(Route::read(route.preamble()), Ok(route));
        }
    }

    #[test]
    fn what_is_no_preamble_is_told_apart() {
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
