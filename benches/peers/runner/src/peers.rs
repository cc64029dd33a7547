//! Peers that take part.

use anyhow::{Result, bail};
use peers_harness::Load;

/// One row of the tables.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Name on the command line and in the tables.
    pub(crate) name: &'static str,
    /// Package and binary.
    pub(crate) package: &'static str,
    /// Arguments of server and client.
    pub(crate) options: &'static [&'static str],
    /// The runner starts the servers; otherwise the client does.
    pub(crate) served: bool,
    /// Loads that are left out, for the reasons in `README.md`.
    pub(crate) omits: &'static [Load],
    /// Crate whose version the report names.
    pub(crate) version_of: &'static str,
}

const PEER: Peer = Peer { name: "", package: "", options: &[], served: true, omits: &[], version_of: "" };

/// All peers, in the order of the tables: Roadshow, plain tokio, services, actors, limits.
pub(crate) const ALL: &[Peer] = &[
    Peer { name: "tokio", package: "peer-tokio", options: &["--runtime", "2"], version_of: "tokio", ..PEER },
    Peer {
        name: "tokio-1t",
        package: "peer-tokio",
        options: &["--runtime", "current_thread"],
        version_of: "tokio",
        ..PEER
    },
];

/// Finds a peer by its name.
///
/// # Errors
///
/// There is no such peer; the error lists all names.
pub(crate) fn find(name: &str) -> Result<&'static Peer> {
    let Some(peer) = ALL.iter().find(|peer| peer.name == name) else {
        let names: Vec<_> = ALL.iter().map(|peer| peer.name).collect();
        bail!("there is no peer `{name}`; the peers are {}", names.join(", "));
    };
    Ok(peer)
}
