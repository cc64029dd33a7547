//! Resources of this machine, and the address that it advertises.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use roadshow::daemon::memory_bytes;

/// Share of the memory offered by default; the rest is for the system.
const MEMORY_SHARE: f64 = 0.7;

/// Documentation addresses (RFC 5737, RFC 3849): the route to them is the default route.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// Returns the source address of the default route, IPv4 preferred; loopback without a default route.
pub(super) fn own_address() -> IpAddr {
    first_route(address_towards)
}

fn first_route(towards: impl Fn(SocketAddr) -> Option<IpAddr>) -> IpAddr {
    // A link-local address is useless to hosts on other links.
    let is_of_a_link = |own: &IpAddr| matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
    let mut sources = ANYWHERE.into_iter().filter_map(towards);
    sources.find(|own| !is_of_a_link(own)).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Returns the source address of the route to that address.
pub(super) fn address_towards(other: SocketAddr) -> Option<IpAddr> {
    let any = match other {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Connecting a datagram socket selects the route and sends nothing.
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Number of CPUs that this process may use.
pub(super) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// Default memory to offer, in bytes: a share of the limit of the machine, container or unit.
pub(super) fn memory() -> u64 {
    // The share is below 1, so the result fits.
    (memory_bytes() as f64 * MEMORY_SHARE) as u64
}

/// Host name of the machine.
pub(super) fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        let other = SocketAddr::from(([127, 0, 0, 1], 6379));
        assert_eq!(address_towards(other), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!own_address().is_unspecified());
    }

    #[test]
    fn machine_with_ipv6_alone_advertises_ipv6() {
        let own: IpAddr = "2001:db8::7".parse().unwrap();
        let (v4, link) = (IpAddr::from([10, 0, 0, 5]), "fe80::1".parse().unwrap());
        assert_eq!(first_route(|other| other.is_ipv6().then_some(own)), own);
        assert_eq!(first_route(|other| Some(if other.is_ipv6() { own } else { v4 })), v4);
        assert_eq!(first_route(|other| other.is_ipv6().then_some(link)), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(first_route(|_| None), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn machine_has_cpus_memory_and_a_name() {
        assert!(cores() >= 1.0 && !hostname().is_empty());
        let share = memory() as f64 / memory_bytes() as f64;
        assert!((share - MEMORY_SHARE).abs() < 0.001, "{share}");
    }
}
