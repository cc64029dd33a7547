//! Where the head is, as the environment or the program says.

use std::net::SocketAddr;

use crate::cluster::ClusterError;

/// The cluster that the environment names.
pub(in crate::cluster) fn address() -> Option<String> {
    std::env::var_os("ROADSHOW_ADDRESS")
        .map(|address| address.to_string_lossy().trim().to_owned())
        .filter(|address| !address.is_empty())
}

/// The first address that a name stands for.
pub(super) async fn resolve(text: &str) -> Result<SocketAddr, ClusterError> {
    let bad = |why: String| ClusterError::Address { address: text.to_owned(), why };
    let owned = text.to_owned();
    if let Ok(address) = owned.parse() {
        return Ok(address);
    }
    if !owned.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(bad("it has no port".to_owned()));
    }
    let found = tokio::task::spawn_blocking(move || std::net::ToSocketAddrs::to_socket_addrs(&owned)).await;
    let mut found = found.map_err(std::io::Error::other)?.map_err(|error| bad(error.to_string()))?;
    found.next().ok_or_else(|| bad("its name stands for no address".to_owned()))
}
