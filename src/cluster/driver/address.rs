//! Address of the head, from the environment or the program.

use std::net::SocketAddr;

use crate::cluster::error::ClusterError;

/// Address that `ROADSHOW_ADDRESS` names, if it is set.
pub(in crate::cluster) fn address() -> Result<Option<String>, ClusterError> {
    super::token::variable("ROADSHOW_ADDRESS")
}

/// Resolves `host:port` to one or more addresses, without duplicates.
pub(super) async fn resolve(text: &str) -> Result<Vec<SocketAddr>, ClusterError> {
    let bad = |why: String| ClusterError::Address { address: text.to_owned(), why };
    let owned = text.to_owned();
    if let Ok(address) = owned.parse() {
        return Ok(vec![address]);
    }
    if !owned.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(bad("it has no port".to_owned()));
    }
    // The resolver blocks on the network, for seconds where a name server is down.
    let found = tokio::task::spawn_blocking(move || std::net::ToSocketAddrs::to_socket_addrs(&owned)).await;
    let found = found.map_err(std::io::Error::other)?.map_err(|error| bad(error.to_string()))?;
    // A resolver may list an address once for each socket type; each would be tried.
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(bad("its name stands for no address".to_owned())),
        false => Ok(addresses),
    }
}
