//! Decisions of a seed before the run: hosts, limits, and severity of the faults.

use std::time::Duration;

use fastrand::Rng;
use roadshow::Limits;
use roadshow::internals::config::InjectedBug;

/// Severity of the faults in a run. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Latency only.
    Calm,
    /// Links break, hosts are partitioned and dial wrong addresses. Every message still has to arrive.
    Breaks,
    /// Hosts forget each other and reconnect while both are alive.
    Forgets,
    /// Hosts refuse connections and are killed: sessions end, and their outcomes have to be correct.
    Ends,
}

/// Parameters of one run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) severity: Severity,
    pub(crate) hosts: usize,
    /// Set if the first host has no listener, like a driver.
    pub(crate) driver: bool,
    /// Absence after which the others forget a driver.
    pub(crate) expire_after: Option<Duration>,
    /// Number of messages of each sender to each actor.
    pub(crate) messages: usize,
    /// Number of actors that each host spawns on each host, itself included.
    pub(crate) guests: usize,
    /// Number of tasks that each host runs on each other host.
    pub(crate) tasks: usize,
    /// Set if every pair of hosts has a session before the faults. Then broken links end no session;
    /// otherwise the first contact may fail.
    pub(crate) connected_first: bool,
    /// Duration of the faults.
    pub(crate) faults_for: Duration,
    pub(crate) limits: Limits,
}

impl Script {
    /// Derives a script from a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let severity = match rng.u8(..10) {
            0 => Severity::Calm,
            1..=3 => Severity::Breaks,
            4..=5 => Severity::Forgets,
            // Most seeds have all faults; the others check the stricter guarantees.
            _ => Severity::Ends,
        };
        let hosts = rng.usize(2..=4);
        let driver = rng.u8(..3) == 0;
        let expires = driver && severity >= Severity::Forgets && rng.bool();
        Self {
            seed,
            severity,
            hosts,
            driver,
            expire_after: expires.then(|| Duration::from_millis(rng.u64(100..600))),
            messages: rng.usize(5..=16),
            guests: rng.usize(0..=2),
            tasks: rng.usize(0..=6),
            connected_first: rng.u8(..4) > 0,
            faults_for: Duration::from_millis(rng.u64(500..=4_000)),
            limits: limits(&mut rng),
        }
    }

    /// Injects a bug into every host.
    pub(crate) fn with_bug(mut self, bug: InjectedBug) -> Self {
        self.limits.injected_bug = Some(bug);
        self
    }

    /// Returns a random generator for one part of the run, so that its draws do not depend on other parts.
    pub(crate) fn rng(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Draws small limits, so that runs reach them.
fn limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    limits.frame_bytes_max = 1 << 20;
    limits.outgoing_bytes_max = rng.usize(4 << 10..=256 << 10);
    limits.window_bytes = rng.usize(1 << 10..=16 << 10);
    limits.send_queue_bytes_max = rng.usize(1 << 10..=64 << 10);
    // Below the longest messages, so that some are sent in chunks.
    limits.chunk_bytes = 64 << 10;
    limits.handshake_timeout = Duration::from_millis(400);
    limits.connect_timeout = Duration::from_millis(400);
    limits.heartbeat_interval = Duration::from_millis(300);
    // Short timeouts, so that a run of a few seconds reaches them.
    limits.heartbeat_timeout = Duration::from_millis(1_000);
    limits.drain_timeout = Duration::from_secs(5);
    limits
}
