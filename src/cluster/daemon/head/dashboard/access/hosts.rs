//! Hosts and origins that requests may name.
//!
//! A page of another site can make a browser send requests here, under a name that it resolves to this machine (DNS
//! rebinding). Such a request names that site's host. A request from this dashboard's own page has an allowed host,
//! and its origin is that same host.

use std::net::{IpAddr, SocketAddr};

const HTTPS: &str = "https://";

/// Host names and addresses under which browsers may reach the dashboard.
#[derive(Clone, Debug)]
pub(in crate::cluster::daemon::head::dashboard) struct AllowedHosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// True if the dashboard listens at all addresses of the machine.
    has_any_address: bool,
    scheme: &'static str,
}

impl AllowedHosts {
    /// Hosts of a dashboard that listens at `bound`, with further names or addresses.
    pub(in crate::cluster::daemon::head::dashboard) fn new<'a>(
        bound: SocketAddr,
        names: impl IntoIterator<Item = &'a str>,
        is_tls: bool,
    ) -> Self {
        let mut hosts = Self {
            names: vec!["localhost".to_owned()],
            addresses: vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), bound.ip()],
            has_any_address: bound.ip().is_unspecified(),
            scheme: if is_tls { HTTPS } else { "http://" },
        };
        for name in names {
            match name.parse() {
                Ok(address) => hosts.addresses.push(address),
                Err(_) => hosts.names.push(name.to_ascii_lowercase()),
            }
        }
        hosts
    }

    /// Returns true if the dashboard speaks TLS.
    pub(in crate::cluster::daemon::head::dashboard) fn is_tls(&self) -> bool {
        self.scheme == HTTPS
    }

    /// Checks the value of a Host header. Any port is allowed: the request may come through a forwarded one.
    pub(in crate::cluster::daemon::head::dashboard) fn is_host(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // A page under an address was loaded from that address, so no other site can have it.
            Ok(address) => self.has_any_address || self.addresses.contains(&address.to_canonical()),
            Err(_) => self.names.contains(&name.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    /// Checks the value of an Origin header against the Host header of the same request.
    pub(in crate::cluster::daemon::head::dashboard) fn is_origin(&self, origin: &str, host: &str) -> bool {
        origin.strip_prefix(self.scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
    }
}

/// Host without its port; `None` if it is not a host.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        // The colon is within an address of IPv6.
        Some(_) if host.ends_with(']') => (host, None),
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(&byte));
    (is_port && is_name && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str, names: &[&'static str]) -> AllowedHosts {
        AllowedHosts::new(bound.parse().unwrap(), names.iter().copied(), false)
    }

    #[test]
    fn loopback_and_given_names_are_hosts_and_other_sites_are_not() {
        let hosts = hosts("127.0.0.1:8265", &["10.0.0.5", "Head"]);
        for host in [
            "127.0.0.1:8265",
            "localhost:9000",
            "LOCALHOST",
            "localhost.",
            "[::1]:8265",
            "[::1]",
            "10.0.0.5:8265",
            "head:1",
        ] {
            assert!(hosts.is_host(host), "{host}");
        }
        for host in [
            "",
            ":8265",
            "evil.example:8265",
            "localhost.evil.example",
            "10.0.0.6:8265",
            "127.0.0.1:x",
            "localhost:",
            "localhost@evil.example",
            "localhost:1/x",
        ] {
            assert!(!hosts.is_host(host), "{host}");
        }
    }

    #[test]
    fn dashboard_at_all_addresses_has_every_address_and_no_further_name() {
        let hosts = hosts("0.0.0.0:8265", &[]);
        assert!(hosts.is_host("192.168.1.7:8265") && hosts.is_host("[2001:db8::1]:8265"));
        assert!(!hosts.is_host("evil.example:8265"));
    }

    #[test]
    fn origin_is_the_host_of_the_request_with_the_scheme() {
        let hosts = hosts("127.0.0.1:8265", &[]);
        assert!(hosts.is_origin("http://localhost:8265", "localhost:8265"));
        for origin in ["http://localhost:3000", "https://localhost:8265", "null", "http://evil.example"] {
            assert!(!hosts.is_origin(origin, "localhost:8265"), "{origin}");
        }
    }
}
