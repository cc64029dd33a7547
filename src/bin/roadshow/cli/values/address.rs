//! `HOST:PORT` arguments.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::error::{CliError, CliResult};

/// Host, by name or IP address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Resolves the name to at least one socket address.
    pub(crate) fn resolve(&self) -> CliResult<Vec<SocketAddr>> {
        let fails = |why: &dyn fmt::Display| {
            let text = format!("cannot find the host {:?}: {why}", self.host);
            CliError::unreachable(text, "give the head's IP address")
        };
        let mut addresses = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| fails(&error))? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.is_empty() {
            true => Err(fails(&"it has no address")),
            false => Ok(addresses),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fails = || "it must be HOST:PORT, such as 10.0.0.5:6379".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(fails)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(fails)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => bare,
            Some(_) => return Err(fails()),
            None => host,
        };
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || (bare.is_none() && !host.chars().all(of_a_name)) {
            return Err(fails());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses an address of this machine to advertise to other nodes.
pub(crate) fn host(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "it must be an IP address of this machine".to_owned())?;
    match ip {
        _ if ip.is_unspecified() => {
            Err("others are told this address: give the one by which they reach this machine".to_owned())
        }
        _ if ip.is_multicast() => Err("it must be an IP address of this machine".to_owned()),
        ip => Ok(ip),
    }
}

/// Parses a port to listen on; 0 picks a free one.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "it must be a port, from 1 to 65535, or 0 for any that is free".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_host_and_a_port() {
        for text in ["10.0.0.5:6379", "head:1", "[::1]:6379", "node-1.example.org:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in
            ["", "10.0.0.5", ":6379", "10.0.0.5:", "10.0.0.5:0", "a:65536", "::1:6379", "[x]:1", "a b:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn ip_addresses_need_no_lookup() {
        let address: HostPort = "[::1]:7".parse().unwrap();
        assert_eq!(address.resolve().unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    #[test]
    fn port_is_a_16_bit_number() {
        assert_eq!(["0", "65535"].map(port), [Ok(0), Ok(65535)]);
        assert!(port("65536").is_err() && port("-1").is_err() && port("").is_err());
    }

    #[test]
    fn advertised_address_is_one_that_others_can_reach() {
        assert!(host("127.0.0.1").is_ok() && host("::1").is_ok());
        for text in ["0.0.0.0", "::", "224.0.0.1", "head", ""] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
