//! Peers that take part.

use anyhow::{Result, bail};
use peers_harness::Load;

/// Row of the tables.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Name on the command line and in the tables.
    pub(crate) name: &'static str,
    /// Package and binary.
    pub(crate) package: &'static str,
    /// Arguments of server and client.
    pub(crate) options: &'static [&'static str],
    /// Origin of the servers.
    pub(crate) servers: Servers,
    /// Loads that are left out, for the reasons in `README.md`.
    pub(crate) omits: &'static [Load],
    /// Crate whose version the report names.
    pub(crate) version_of: &'static str,
}

/// Origin of a peer's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// The runner starts a process for each.
    Each,
    /// The client starts them.
    OfClient,
    /// The runner starts a node of Roadshow, whose workers they are.
    OfNode,
}

const PEER: Peer =
    Peer { name: "", package: "", options: &[], servers: Servers::Each, omits: &[], version_of: "" };

/// Loads with more than one call in flight, or with bytes.
const NOT_BLOCKING: &[Load] = Load::ALL.split_first().expect("there are loads").1;

const TLS: &[&str] = &["--variant", "tls"];

/// All peers, in the order of the tables: Roadshow, plain tokio, services, actors, both with TLS, limits.
pub(crate) const ALL: &[Peer] = &[
    Peer {
        name: "roadshow",
        package: "peer-roadshow",
        servers: Servers::OfClient,
        version_of: "roadshow",
        ..PEER
    },
    Peer { name: "tokio", package: "peer-tokio", options: &["--runtime", "2"], version_of: "tokio", ..PEER },
    Peer {
        name: "tokio-1t",
        package: "peer-tokio",
        options: &["--runtime", "current_thread"],
        version_of: "tokio",
        ..PEER
    },
    Peer { name: "tonic", package: "peer-tonic", version_of: "tonic", ..PEER },
    Peer {
        name: "tonic-1t",
        package: "peer-tonic",
        options: &["--runtime", "current_thread"],
        version_of: "tonic",
        ..PEER
    },
    Peer {
        name: "tonic-unary",
        package: "peer-tonic",
        options: &["--variant", "unary"],
        version_of: "tonic",
        ..PEER
    },
    Peer { name: "tarpc", package: "peer-tarpc", version_of: "tarpc", ..PEER },
    Peer {
        name: "kameo",
        package: "peer-kameo",
        omits: &[Load::Calls1024, Load::Timeout1024],
        version_of: "kameo",
        ..PEER
    },
    Peer { name: "ractor", package: "peer-ractor", version_of: "ractor_cluster", ..PEER },
    Peer { name: "telepathy", package: "peer-telepathy", version_of: "actix-telepathy", ..PEER },
    Peer { name: "coerce", package: "peer-coerce", version_of: "coerce", ..PEER },
    Peer {
        name: "roadshow-tls",
        package: "peer-roadshow",
        options: TLS,
        servers: Servers::OfNode,
        version_of: "roadshow",
        ..PEER
    },
    Peer { name: "tokio-tls", package: "peer-tokio", options: TLS, version_of: "rustls", ..PEER },
    Peer { name: "sockets", package: "peer-sockets", omits: NOT_BLOCKING, ..PEER },
    Peer { name: "actix", package: "peer-actix", servers: Servers::OfClient, version_of: "actix", ..PEER },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_all_peers_and_loads() {
        let page = include_str!("../../README.md");
        let names = ALL.iter().map(|peer| peer.name).chain(Load::ALL.iter().map(|load| load.name()));
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "README.md has no `{name}`");
        }
    }

    #[test]
    fn names_are_found_and_unknown_ones_are_answered_with_the_list() {
        assert_eq!(find("tonic-unary").unwrap().package, "peer-tonic");
        assert!(find("ray").unwrap_err().to_string().contains("tonic-unary"));
    }
}
