//! What a seed decides before anything runs: hosts, limits, and how rough it gets.

use std::time::Duration;

use fastrand::Rng;
use roadshow::Limits;
use roadshow::internals::config::InjectedBug;

/// How rough a run gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    /// Latency alone.
    Calm,
    /// Links break, hosts are cut off from each other and dial wrong addresses. Every message has to arrive
    /// all the same.
    Breaks,
    /// Hosts forget each other, too, and meet again while both live.
    Forgets,
    /// Hosts refuse connections and die, too: sessions end, and have to say the truth about it.
    Ends,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) hosts: usize,
    /// Whether the first host listens on nothing, as a driver does.
    pub(crate) driver: bool,
    /// Absence after which the others forget a driver.
    pub(crate) strays_after: Option<Duration>,
    /// Messages of each sender to each actor.
    pub(crate) messages: usize,
    /// Actors that each host has spawned on each host, itself included.
    pub(crate) guests: usize,
    /// Tasks that each host has run on each other host.
    pub(crate) tasks: usize,
    /// Whether every two hosts have a session before anything happens to it: links that break end
    /// none then. Else the first contact may come to nothing.
    pub(crate) acquainted: bool,
    /// How long faults go on.
    pub(crate) faults_for: Duration,
    pub(crate) limits: Limits,
}

impl Script {
    /// What follows from a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = match rng.u8(..10) {
            0 => Weather::Calm,
            1..=3 => Weather::Breaks,
            4..=5 => Weather::Forgets,
            _ => Weather::Ends,
        };
        let hosts = rng.usize(2..=4);
        let driver = rng.u8(..3) == 0;
        let forgets = driver && weather >= Weather::Forgets && rng.bool();
        Self {
            seed,
            weather,
            hosts,
            driver,
            strays_after: forgets.then(|| Duration::from_millis(rng.u64(100..600))),
            messages: rng.usize(5..=16),
            guests: rng.usize(0..=2),
            tasks: rng.usize(0..=6),
            acquainted: rng.u8(..4) > 0,
            faults_for: Duration::from_millis(rng.u64(500..=4_000)),
            limits: limits(&mut rng),
        }
    }

    /// The same, with a bug planted in every host.
    pub(crate) fn planted(mut self, planted: InjectedBug) -> Self {
        self.limits.injected_bug = Some(planted);
        self
    }

    /// A generator for one part of the run: what one draws does not depend on the others.
    pub(crate) fn rng(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Small ones, so that they are met.
fn limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    limits.frame_bytes_max = 1 << 20;
    limits.outgoing_bytes_max = rng.usize(4 << 10..=256 << 10);
    limits.window_bytes = rng.usize(1 << 10..=16 << 10);
    limits.send_queue_bytes_max = rng.usize(1 << 10..=64 << 10);
    limits.chunk_bytes = 64 << 10;
    limits.handshake_timeout = Duration::from_millis(400);
    limits.connect_timeout = Duration::from_millis(400);
    limits.heartbeat_interval = Duration::from_millis(300);
    limits.heartbeat_timeout = Duration::from_millis(1_000);
    limits.drain_timeout = Duration::from_secs(5);
    limits
}
