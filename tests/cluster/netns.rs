//! Network namespaces as machines, connected by a switch or a router.
//!
//! ```text
//! Network::new(3)                     Network::routed(3)
//!
//! [0]---+                             [0]--/30--+
//! [1]---[bridge] 192.0.2.0/24         [1]--/30--[router]  drops packets of one machine
//! [2]---+  capture() reads here       [2]--/30--+         without any error to the senders
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::test_cluster::text;

/// Namespaces on one switch or behind one router. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Network {
    prefix: String,
    machines: usize,
    routed: bool,
}

impl Network {
    /// Creates machines on one switch, or explains why this is impossible here.
    pub(super) fn new(machines: usize) -> Result<Self, String> {
        Self::with(machines, false)
    }

    /// Creates machines on networks of their own, with a router between them.
    pub(super) fn routed(machines: usize) -> Result<Self, String> {
        Self::with(machines, true)
    }

    fn with(machines: usize, routed: bool) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        if !rustix::process::geteuid().is_root() {
            return Err("namespaces of the network are for root".to_owned());
        }
        let network = Self { prefix: format!("rsct{}-{number}", std::process::id()), machines, routed };
        let made = if routed { network.make_routed() } else { network.make() };
        made.map_err(|error| format!("no namespaces of the network: {error}"))?;
        Ok(network)
    }

    fn make(&self) -> Result<(), String> {
        let switch = self.switch();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for at in 0..self.machines {
            let (machine, port) = (self.machine(at), format!("port{at}"));
            ip(&["netns", "add", &machine])?;
            // The far end of the pair is created in the machine's namespace.
            let peer = ["peer", "name", "eth0", "netns", &machine];
            ip(&[&["-n", &switch, "link", "add", &port, "type", "veth"][..], &peer].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &machine, "addr", "add", &format!("{}/24", self.address(at)), "dev", "eth0"])?;
            ip(&["-n", &machine, "link", "set", "lo", "up"])?;
            ip(&["-n", &machine, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    fn make_routed(&self) -> Result<(), String> {
        let router = self.switch();
        ip(&["netns", "add", &router])?;
        within(&router, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .map_err(|error| format!("ip_forward: {error}"))?;
        for at in 0..self.machines {
            let (machine, port) = (self.machine(at), format!("port{at}"));
            ip(&["netns", "add", &machine])?;
            let peer = ["peer", "name", "eth0", "netns", &machine];
            ip(&[&["-n", &router, "link", "add", &port, "type", "veth"][..], &peer].concat())?;
            ip(&["-n", &router, "addr", "add", &format!("{}/30", routed_address(at, 1)), "dev", &port])?;
            ip(&["-n", &router, "link", "set", &port, "up"])?;
            ip(&["-n", &machine, "addr", "add", &format!("{}/30", self.address(at)), "dev", "eth0"])?;
            ip(&["-n", &machine, "link", "set", "lo", "up"])?;
            ip(&["-n", &machine, "link", "set", "eth0", "up"])?;
            ip(&["-n", &machine, "route", "add", "default", "via", &routed_address(at, 1)])?;
        }
        Ok(())
    }

    /// Makes the router silently drop all packets from and to a machine, or stops that.
    pub(super) fn drop_packets_of(&self, at: usize, dropped: bool) {
        let (router, address, what) = (self.switch(), self.address(at), if dropped { "add" } else { "del" });
        // Blackhole routes drop packets without an ICMP error, as a broken path does.
        ip(&["-n", &router, "route", what, "blackhole", &format!("{address}/32")]).unwrap();
        ip(&["-n", &router, "rule", what, "from", &address, "blackhole"]).unwrap();
    }

    /// Makes the router silently drop the packets from one machine to another, but not those back, or stops that.
    pub(super) fn drop_packets(&self, from: usize, to: usize, dropped: bool) {
        let (router, what) = (self.switch(), if dropped { "add" } else { "del" });
        let (from, to) = (self.address(from), self.address(to));
        ip(&["-n", &router, "rule", what, "from", &from, "to", &to, "blackhole"]).unwrap();
    }

    /// Has the switch pass no more than a mebibit a second to a machine; or why it cannot.
    pub(super) fn slow_down(&self, at: usize) -> Result<(), String> {
        let rate = ["rate", "1mbit", "burst", "32kbit", "latency", "400ms"];
        let (switch, port) = (self.switch(), format!("port{at}"));
        run("tc", &[&["-n", &switch, "qdisc", "add", "dev", &port, "root", "tbf"][..], &rate].concat())
    }

    fn switch(&self) -> String {
        format!("{}-s", self.prefix)
    }

    pub(super) fn machine(&self, at: usize) -> String {
        format!("{}-{at}", self.prefix)
    }

    /// Documentation address (RFC 5737) of a machine.
    pub(super) fn address(&self, at: usize) -> String {
        if self.routed { routed_address(at, 2) } else { format!("192.0.2.{}", at + 1) }
    }

    /// Command prefix that runs a command on a machine.
    pub(super) fn under(&self, at: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.machine(at)].map(str::to_owned).to_vec()
    }

    /// Runs a closure on a machine.
    pub(super) fn on<T: Send>(&self, at: usize, what: impl FnOnce() -> T + Send) -> T {
        within(&self.machine(at), what)
    }

    /// Captures all packets that pass the switch.
    pub(super) fn capture(&self) -> io::Result<Capture> {
        let socket = within(&self.switch(), || {
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(eth::ALL))
        })?;
        // The kernel drops packets that do not fit: the buffer is for the whole test.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 64 << 20)?;
        // `recv` returns now and then, to check the stop flag.
        let often = Some(Duration::from_millis(20));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, often)?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let received = std::thread::spawn(move || {
            let (mut received, mut packet) = (Vec::new(), vec![0; 128 << 10]);
            loop {
                match recv(&socket, &mut packet[..], RecvFlags::empty()) {
                    Ok((count, _)) => received.extend_from_slice(&packet[..count]),
                    // Packets from before the stop are in the socket buffer, and are read before the timeout occurs.
                    Err(_) if stopped.load(Ordering::Acquire) => return received,
                    Err(_) => {}
                }
            }
        });
        Ok(Capture { stop, received })
    }
}

/// Address on a machine's own network: host 1 is the router, host 2 the machine.
fn routed_address(at: usize, host: usize) -> String {
    format!("192.0.2.{}", 4 * at + host)
}

/// Running capture of the switch.
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    received: std::thread::JoinHandle<Vec<u8>>,
}

impl Capture {
    /// Stops the capture, and returns all packets concatenated.
    pub(super) fn end(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Release);
        self.received.join().unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.machines).map(|at| self.machine(at)).chain([self.switch()]) {
            // Fails for one whose creation failed.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Runs a closure in a network namespace, on a thread of its own: the change of namespace cannot be undone.
fn within<T: Send>(name: &str, what: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(std::path::Path::new("/run/netns").join(name)).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {}: {}", arguments.join(" "), text(&output.stderr).trim())),
    }
}

/// Listening TCP ports in the network namespace of a process.
pub(super) fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| text(&super::proc::file(pid, table)));
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let listening = lines.filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        // 0A is TCP_LISTEN.
        let port = columns.get(1).filter(|_| columns.get(3) == Some(&"0A"))?;
        u16::from_str_radix(port.rsplit_once(':')?.1, 16).ok()
    });
    listening.collect()
}
