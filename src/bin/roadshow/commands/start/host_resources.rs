//! What this machine has for work, and by which address others reach it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use roadshow::daemon::memory_bytes;

/// Which part of the memory is for work, unless it is said otherwise; the rest is the system's.
const MEMORY_SHARE: f64 = 0.7;

/// Addresses for documentation (RFC 5737, RFC 3849): the way to one of them is the way to anywhere.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The address from which this machine would send to others, of IPv4 if it has one; loopback if it has no
/// way to anywhere.
pub(super) fn own_address() -> IpAddr {
    first_way(address_towards)
}

fn first_way(towards: impl Fn(SocketAddr) -> Option<IpAddr>) -> IpAddr {
    // An address of a single link is of no use to hosts behind other links.
    let is_of_a_link = |own: &IpAddr| matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
    let mut ways = ANYWHERE.into_iter().filter_map(towards);
    ways.find(|own| !is_of_a_link(own)).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The address from which this machine would send to that one.
pub(super) fn address_towards(other: SocketAddr) -> Option<IpAddr> {
    let any = match other {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Of a datagram socket this picks the way, and sends nothing.
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How many processors this process may use.
pub(super) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// How much memory is for work, in bytes: of what the machine has, or its container or unit may take.
pub(super) fn memory() -> u64 {
    // A share of what fits a u64 fits one.
    (memory_bytes() as f64 * MEMORY_SHARE) as u64
}

/// What the machine is called.
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
    fn a_machine_with_ipv6_alone_is_reached_by_that() {
        let own: IpAddr = "2001:db8::7".parse().unwrap();
        let (v4, link) = (IpAddr::from([10, 0, 0, 5]), "fe80::1".parse().unwrap());
        assert_eq!(first_way(|other| other.is_ipv6().then_some(own)), own);
        assert_eq!(first_way(|other| Some(if other.is_ipv6() { own } else { v4 })), v4);
        assert_eq!(first_way(|other| other.is_ipv6().then_some(link)), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(first_way(|_| None), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_machine_has_processors_memory_and_a_name() {
        assert!(cores() >= 1.0 && !hostname().is_empty());
        let share = memory() as f64 / memory_bytes() as f64;
        assert!((share - MEMORY_SHARE).abs() < 0.001, "{share}");
    }
}
