//! Network of a simulated cluster: the addresses of its machines, and who is cut off.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::random_between;
use crate::transport::{Memory, Transport};

/// Port of the head.
const HEAD_PORT: u16 = 6380;

/// Machine of a simulated cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Machine of the head.
    Head,
    /// Node with this number.
    Node(usize),
    /// Machine of the driver with this number.
    Driver(usize),
}

impl Machine {
    pub(super) fn ip(self) -> IpAddr {
        let (network, number) = match self {
            Self::Head => (0, 0),
            Self::Node(number) => (1, number),
            Self::Driver(number) => (2, number),
        };
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, network, 0, 1)) + number as u32).into()
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head => write!(f, "the head"),
            Self::Node(number) => write!(f, "node {number}"),
            Self::Driver(number) => write!(f, "driver {number}"),
        }
    }
}

/// Address of the head.
pub(super) fn head_at() -> SocketAddr {
    SocketAddr::new(Machine::Head.ip(), HEAD_PORT)
}

/// Directions in which a machine is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Isolation {
    sends_nothing: bool,
    receives_nothing: bool,
    /// Number of its processes that are paused.
    paused: usize,
}

#[derive(Debug)]
pub(super) struct SimNetwork {
    memory: Memory,
    machines: Mutex<BTreeMap<Machine, Isolation>>,
    /// Time of the last fault of each machine.
    faults: Mutex<BTreeMap<Machine, Instant>>,
    changed: Notify,
}

impl SimNetwork {
    pub(super) fn new(seed: u64, machines: impl Iterator<Item = Machine>) -> Self {
        let machines = machines.map(|machine| (machine, Isolation::default())).collect();
        let (faults, changed) = (Mutex::default(), Notify::new());
        Self { memory: Memory::new(seed), machines: Mutex::new(machines), faults, changed }
    }

    /// Notes a fault of a machine, or the end of one.
    pub(super) fn disturb(&self, machine: Machine) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.insert(machine, Instant::now());
    }

    /// Time since the last fault of a machine; zero while it is cut off, or one of its processes is paused.
    pub(super) fn calm_for(&self, machine: Machine) -> Duration {
        let is_isolated = self.lock().get(&machine).is_some_and(|it| *it != Isolation::default());
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.get(&machine) {
            _ if is_isolated => Duration::ZERO,
            Some(last) => last.elapsed(),
            None => Duration::MAX,
        }
    }

    pub(super) fn at(&self, machine: Machine) -> Arc<dyn Transport> {
        Arc::new(self.memory.at(machine.ip()))
    }

    pub(super) fn latency(&self, range: std::ops::RangeInclusive<Duration>) {
        self.memory.latency(range);
    }

    /// Breaks the links between two machines, and returns their number.
    pub(super) fn break_links(&self, one: Machine, other: Machine) -> usize {
        [one, other].into_iter().for_each(|machine| self.disturb(machine));
        self.memory.cut(one.ip(), other.ip())
    }

    /// Cuts a machine off.
    pub(super) fn cut_off(&self, machine: Machine, sends_nothing: bool, receives_nothing: bool) {
        self.change(machine, |it| *it = Isolation { sends_nothing, receives_nothing, ..*it });
    }

    /// Counts a process of a machine that is paused, or that goes on. The machine still takes bytes for it.
    pub(super) fn set_paused(&self, machine: Machine, paused: bool) {
        self.change(machine, |it| match paused {
            true => it.paused += 1,
            false => it.paused = it.paused.saturating_sub(1),
        });
    }

    fn change(&self, machine: Machine, change: impl FnOnce(&mut Isolation)) {
        self.disturb(machine);
        let mut machines = self.lock();
        let Some(isolation) = machines.get_mut(&machine) else { return };
        change(isolation);
        for other in machines.keys().copied().filter(|other| *other != machine) {
            self.memory.heal(machine.ip(), other.ip());
            for (from, to) in [(machine, other), (other, machine)] {
                if is_blocked(&machines, from, to) {
                    self.memory.partition(from.ip(), to.ip());
                }
            }
        }
        drop(machines);
        self.changed.notify_waiters();
    }

    /// Waits until bytes pass between two machines in both directions, for a round trip of the enrolment.
    pub(super) async fn round_trip(&self, one: Machine, other: Machine) {
        tokio::time::sleep(random_between([Duration::from_millis(1), Duration::from_millis(10)])).await;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let is_open = {
                let machines = self.lock();
                !is_blocked(&machines, one, other) && !is_blocked(&machines, other, one)
            };
            if is_open {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Machine, Isolation>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_blocked(machines: &BTreeMap<Machine, Isolation>, from: Machine, to: Machine) -> bool {
    let of = |machine| machines.get(&machine).copied().unwrap_or_default();
    let (from, to) = (of(from), of(to));
    from.sends_nothing || to.receives_nothing
}
