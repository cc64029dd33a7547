//! Nodes that are machines of their own to the network: namespaces, connected by a switch or a router.

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

use super::site::text;

/// Namespaces on one switch, or behind one router. Dropping them removes them.
#[derive(Debug)]
pub(super) struct Network {
    prefix: String,
    machines: usize,
    routed: bool,
}

impl Network {
    /// So many machines on a switch; or why there can be none.
    pub(super) fn new(machines: usize) -> Result<Self, String> {
        Self::with(machines, false)
    }

    /// So many machines, each on a network of its own, with a router between them.
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

    /// Has the router drop all packets from and to a machine without a word, or no more of them.
    pub(super) fn drop_packets_of(&self, at: usize, dropped: bool) {
        let (router, address, what) = (self.switch(), self.address(at), if dropped { "add" } else { "del" });
        ip(&["-n", &router, "route", what, "blackhole", &format!("{address}/32")]).unwrap();
        ip(&["-n", &router, "rule", what, "from", &address, "blackhole"]).unwrap();
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

    /// One of documentation's addresses (RFC 5737).
    pub(super) fn address(&self, at: usize) -> String {
        if self.routed { routed_address(at, 2) } else { format!("192.0.2.{}", at + 1) }
    }

    /// What a command is begun with that is to run on a machine.
    pub(super) fn under(&self, at: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.machine(at)].map(str::to_owned).to_vec()
    }

    /// Does something on a machine.
    pub(super) fn on<T: Send>(&self, at: usize, what: impl FnOnce() -> T + Send) -> T {
        within(&self.machine(at), what)
    }

    /// Hears all that passes the switch.
    pub(super) fn capture(&self) -> io::Result<Capture> {
        let socket = within(&self.switch(), || {
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(eth::ALL))
        })?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 64 << 20)?;
        let often = Some(Duration::from_millis(20));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, often)?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let heard = std::thread::spawn(move || {
            let (mut heard, mut packet) = (Vec::new(), vec![0; 128 << 10]);
            loop {
                match recv(&socket, &mut packet[..], RecvFlags::empty()) {
                    Ok((count, _)) => heard.extend_from_slice(&packet[..count]),
                    // What came before the end was asked for is read before that.
                    Err(_) if stopped.load(Ordering::Acquire) => return heard,
                    Err(_) => {}
                }
            }
        });
        Ok(Capture { stop, heard })
    }
}

/// A host of the network that a machine is on: 1 is the router, 2 the machine.
fn routed_address(at: usize, host: usize) -> String {
    format!("192.0.2.{}", 4 * at + host)
}

/// What passes the switch.
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    heard: std::thread::JoinHandle<Vec<u8>>,
}

impl Capture {
    /// All that has passed, one packet behind the other.
    pub(super) fn end(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Release);
        self.heard.join().unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.machines).map(|at| self.machine(at)).chain([self.switch()]) {
            // One that was never made is not there.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Runs something in a namespace, on a thread of its own.
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

/// The ports that are listened on where a process's network is.
pub(super) fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| text(&super::proc::file(pid, table)));
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let listening = lines.filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        // The state is LISTEN.
        let port = columns.get(1).filter(|_| columns.get(3) == Some(&"0A"))?;
        u16::from_str_radix(port.rsplit_once(':')?.1, 16).ok()
    });
    listening.collect()
}
