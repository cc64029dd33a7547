//! Decisions of a seed before the run: size of the cluster, and severity of the faults.

use std::time::Duration;

use fastrand::Rng;
use roadshow::internals::config::InjectedBug;
use roadshow::sim::Plan;

/// Severity of the faults in a run. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Latency only.
    Calm,
    /// Links break, and machines are cut off for less than a lease. Nothing ends but what is ended.
    Breaks,
    /// Workers and agents are killed, and nodes are cut off for longer than a lease.
    Nodes,
    /// Drivers and the head are killed, too.
    All,
}

/// Parameters of one run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) plan: Plan,
    pub(crate) severity: Severity,
    /// Duration of the faults.
    pub(crate) faults_for: Duration,
    /// Longest pause between two faults, in milliseconds.
    pub(crate) fault_pause_ms: u64,
}

impl Script {
    /// Derives a script from a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let severity = match rng.u8(..10) {
            0 => Severity::Calm,
            1 | 2 => Severity::Breaks,
            3..=5 => Severity::Nodes,
            _ => Severity::All,
        };
        let mut plan = Plan::new(seed);
        plan.nodes = rng.usize(1..=4);
        plan.drivers = rng.usize(1..=3);
        plan.workers = rng.u32(1..=2);
        plan.cpus = 4.0;
        Self {
            plan,
            severity,
            faults_for: Duration::from_secs(rng.u64(5..=60)),
            fault_pause_ms: rng.u64(300..=6_000),
        }
    }

    /// Injects a bug into the processes of the cluster.
    pub(crate) fn with_bug(mut self, bug: InjectedBug) -> Self {
        self.plan.injected_bug = Some(bug);
        self
    }

    /// Returns a random generator for one part of the run, so that its draws do not depend on other parts.
    pub(crate) fn rng(&self, part: u64) -> Rng {
        Rng::with_seed(self.plan.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
