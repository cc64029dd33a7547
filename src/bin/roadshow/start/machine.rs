//! What this machine has for work, and by which address others reach it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Which part of the memory is for work, unless it is said otherwise; the rest is the system's.
const MEMORY_SHARE: f64 = 0.7;

/// An address for documentation (RFC 5737): the way to it is the way to anywhere.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The address from which this machine would send to others; loopback if it has no way to anywhere.
pub(super) fn own_address() -> IpAddr {
    address_towards(ANYWHERE).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
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

/// How much memory is for work, in bytes: of what the machine has, or of what its container may take.
pub(super) fn memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let container =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let all = machine.into_iter().chain(container).min().unwrap_or(0);
    // A share of what fits a u64 fits one.
    (all as f64 * MEMORY_SHARE) as u64
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
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
    fn a_machine_has_processors_memory_and_a_name() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total(""), None);
        assert!(cores() >= 1.0 && memory() > 0 && !hostname().is_empty());
    }
}
