//! Simulation of a whole cluster in one thread and in virtual time: a head, agents, workers and drivers.
//!
//! Hosts, sessions, the control plane, the head's services, the membership of each process and the hosts of workers are
//! those of a real cluster. The network is [`Memory`](crate::Memory), which encodes every message. Processes,
//! executables, certificates and the disk are simulated. A seed decides everything else, so a run can be repeated.
//!
//! ```text
//!   Machine::Head        Machine::Node(n)              Machine::Driver(n)
//!     SimHead, Disk        SimAgent                      SimDriver
//!                          SimWorker: two hosts each
//! ```

mod agent;
mod disk;
mod driver;
mod head;
mod journal;
mod network;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_rt::System;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::control_plane::state::ClusterState;
use super::model::{ActorInfo, ActorKey, ActorLocation, JobInfo, NodeInfo, WorkerId, WorkerSummary};
use crate::background::gate::{self, Gate};
use crate::config::{InjectedBug, Limits};
use crate::host::entropy::simulated::SimulatedEntropy;
use crate::host::random_u64;
use crate::id::{ActorIncarnation, HostUid};
use crate::observe::HostSnapshot;
use crate::session::Secret;
use crate::spec::LeaseTime;
use agent::SimAgent;
use disk::Disk;
pub use driver::SimDriver;
use head::SimHead;
pub use journal::Journal;
pub use network::Machine;
use network::SimNetwork;

/// Time that the tasks of a cluster may take to notice its end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two checks for the end of the tasks.
const CLOSE_INTERVAL: Duration = Duration::from_millis(100);

/// Error of a simulated process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(String);

/// Settings of a simulated cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of machines for drivers.
    pub drivers: usize,
    /// Number of workers that each node runs for each job.
    pub workers: u32,
    /// CPUs of each node.
    pub cpus: f64,
    /// Namespace of the names of all jobs; empty for one of each job.
    pub namespace: String,
    /// Bug to inject.
    pub injected_bug: Option<InjectedBug>,
}

impl Plan {
    /// Settings of a small cluster.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 2,
            drivers: 1,
            workers: 2,
            cpus: 8.0,
            namespace: "shared".to_owned(),
            injected_bug: None,
        }
    }
}

/// State that the processes of a simulated cluster share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    network: SimNetwork,
    journal: Journal,
    disk: Disk,
    /// Hosts of the processes that run.
    running: Mutex<BTreeSet<HostUid>>,
    head: Mutex<Option<HostUid>>,
    /// Host of each incarnation of a restartable actor that was created.
    incarnations: Mutex<BTreeMap<(ActorKey, ActorIncarnation), HostUid>>,
    /// Machine of the last incarnation that was created again.
    restarted_on: Mutex<Option<Machine>>,
    restarted: Notify,
}

impl Shared {
    /// Notes the creation of an actor: two incarnations must never have the same number.
    fn actor_created(&self, machine: Machine, actor: ActorKey, at: ActorLocation) {
        if at.target.actor.managed_number().is_none() {
            return;
        }
        let number = at.target.incarnation;
        let earlier = lock(&self.incarnations).insert((actor, number), at.host);
        if let Some(earlier) = earlier.filter(|earlier| *earlier != at.host) {
            self.journal.violation(format_args!(
                "incarnation {number} of actor {actor} is created on {:?}, and was on {earlier:?}",
                at.host
            ));
        }
        if number.0 > 0 {
            *lock(&self.restarted_on) = Some(machine);
            self.restarted.notify_one();
        }
    }

    fn secret(&self) -> Secret {
        Secret::from_bytes([7; 32])
    }

    fn limits(&self) -> Limits {
        Limits {
            injected_bug: self.plan.injected_bug,
            // A busy thread would spend real time in which no virtual time passes.
            busy_poll: Duration::ZERO,
            ..Limits::default()
        }
    }

    fn register(&self, hosts: impl IntoIterator<Item = HostUid>) {
        lock(&self.running).extend(hosts);
    }

    fn unregister(&self, hosts: impl IntoIterator<Item = HostUid>) {
        let mut running = lock(&self.running);
        for host in hosts {
            running.remove(&host);
        }
    }

    /// Incarnation of the running head.
    fn head_identity(&self) -> Option<HostUid> {
        *lock(&self.head)
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws a duration of a range from the simulation's source.
fn random_between([least, most]: [Duration; 2]) -> Duration {
    let span = u64::try_from((most - least).as_nanos()).unwrap_or(u64::MAX);
    least + Duration::from_nanos(random_u64() % (span + 1))
}

/// Simulated cluster.
#[derive(Debug)]
pub struct World {
    shared: Arc<Shared>,
    head: Mutex<Option<SimHead>>,
    /// True while a head starts, which waits for the disk.
    head_starts: AtomicBool,
    nodes: Vec<Mutex<Option<SimAgent>>>,
    /// True for each node while its agent starts.
    agents_start: Vec<AtomicBool>,
    tasks_before: usize,
}

impl World {
    /// Runs a simulation: starts a cluster, lets `play` use it, and ends it. Returns the log.
    ///
    /// # Panics
    ///
    /// If no runtime can be started.
    pub fn run(plan: Plan, play: impl AsyncFnOnce(Rc<Self>)) -> Journal {
        let runtime = || {
            Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime starts")
        };
        System::with_tokio_rt(runtime).block_on(async move {
            let _entropy = SimulatedEntropy::begin(plan.seed);
            let journal = Journal::new();
            BEGINNING.set(Some(Instant::now()));
            let world = Rc::new(Self::start(plan, journal.clone()).await);
            play(Rc::clone(&world)).await;
            world.close().await;
            journal
        })
    }

    async fn start(plan: Plan, journal: Journal) -> Self {
        let tasks_before = tasks_alive();
        let machines = std::iter::once(Machine::Head)
            .chain((0..plan.nodes).map(Machine::Node))
            .chain((0..plan.drivers).map(Machine::Driver));
        let network = SimNetwork::new(plan.seed, machines);
        let nodes = plan.nodes;
        let shared = Arc::new(Shared {
            plan,
            network,
            journal,
            disk: Disk::default(),
            running: Mutex::default(),
            head: Mutex::default(),
            incarnations: Mutex::default(),
            restarted_on: Mutex::default(),
            restarted: Notify::new(),
        });
        let world = Self {
            shared,
            head: Mutex::default(),
            head_starts: AtomicBool::new(false),
            nodes: (0..nodes).map(|_| Mutex::default()).collect(),
            agents_start: (0..nodes).map(|_| AtomicBool::new(false)).collect(),
            tasks_before,
        };
        world.start_head().await;
        for node in 0..world.nodes.len() {
            world.start_agent(node).await;
        }
        world
    }

    /// Log of the run.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Waits for the next restart of an actor, and returns its machine.
    pub async fn actor_restarted(&self) -> Machine {
        loop {
            self.shared.restarted.notified().await;
            if let Some(machine) = lock(&self.shared.restarted_on).take() {
                return machine;
            }
        }
    }

    /// Starts the head, unless it runs or starts already.
    pub async fn start_head(&self) {
        if lock(&self.head).is_some() || self.head_starts.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.network.disturb(Machine::Head);
        let head = SimHead::start(&self.shared).await;
        *lock(&self.shared.head) = Some(head.host.identity());
        *lock(&self.head) = Some(head);
        self.head_starts.store(false, Ordering::Relaxed);
    }

    /// Kills the head. What it has not synced is lost.
    pub fn kill_head(&self) {
        let Some(head) = lock(&self.head).take() else { return };
        *lock(&self.shared.head) = None;
        let lost = head.kill(&self.shared);
        self.journal().note(format_args!("the head is killed, {lost} unsynced writes are lost"));
    }

    /// Starts the agent of a node, unless it runs or starts already. It joins in the background.
    pub async fn start_agent(&self, node: usize) {
        let starts = &self.agents_start[node];
        if lock(&self.nodes[node]).is_some() || starts.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.network.disturb(Machine::Node(node));
        let agent = SimAgent::start(&self.shared, node).await;
        *lock(&self.nodes[node]) = Some(agent);
        starts.store(false, Ordering::Relaxed);
    }

    /// Kills the agent of a node, and its workers with it.
    pub fn kill_agent(&self, node: usize) {
        if let Some(agent) = lock(&self.nodes[node]).take() {
            self.journal().note(format_args!("the agent of node {node} is killed"));
            agent.kill();
        }
    }

    /// Kills a worker of a node.
    pub fn kill_worker(&self, node: usize, number: usize) {
        if let Some(worker) = lock(&self.nodes[node]).as_ref().and_then(|agent| agent.kill_worker(number)) {
            self.journal().note(format_args!("worker {worker} on node {node} is killed"));
        }
    }

    /// Kills a driver.
    pub fn kill_driver(&self, driver: &SimDriver) {
        driver.kill();
    }

    /// Cuts a machine off from all others, in one direction or both; `[false, false]` heals it.
    pub fn cut_off(&self, machine: Machine, [sends_nothing, receives_nothing]: [bool; 2]) {
        let what = match (sends_nothing, receives_nothing) {
            (false, false) => "is connected again",
            (true, false) => "sends nothing",
            (false, true) => "receives nothing",
            (true, true) => "is cut off",
        };
        self.journal().note(format_args!("{machine} {what}"));
        self.shared.network.cut_off(machine, sends_nothing, receives_nothing);
    }

    /// Pauses processes, as SIGSTOP does: they do nothing until the result is resumed. Bytes to them wait.
    ///
    /// `None` if there is no such process, or it is paused already.
    pub fn pause(&self, what: Pausable<'_>) -> Option<Paused> {
        let (machine, gate, name) = match what {
            Pausable::Head => (Machine::Head, lock(&self.head).as_ref()?.gate.clone(), "the head".to_owned()),
            Pausable::Node(node) => {
                let gate = lock(&self.nodes[node]).as_ref()?.0.node_gate.clone();
                (Machine::Node(node), gate, format!("node {node}"))
            }
            Pausable::Agent(node) => {
                let gate = lock(&self.nodes[node]).as_ref()?.0.gate.clone();
                (Machine::Node(node), gate, format!("the agent of node {node}"))
            }
            Pausable::Worker(node, number) => {
                let (worker, gate) = lock(&self.nodes[node]).as_ref()?.worker_gate(number)?;
                (Machine::Node(node), gate, format!("worker {worker} on node {node}"))
            }
            Pausable::Driver(driver) => (driver.machine(), driver.gate(), driver.machine().to_string()),
        };
        if gate.is_closed() {
            return None;
        }
        self.journal().note(format_args!("{name} is paused"));
        gate.set_closed(true);
        self.shared.network.set_paused(machine, true);
        Some(Paused { shared: Arc::clone(&self.shared), machine, gate, name })
    }

    /// Breaks all links between two machines.
    pub fn break_links(&self, one: Machine, other: Machine) {
        let links = self.shared.network.break_links(one, other);
        self.journal().note(format_args!("{links} links between {one} and {other} break"));
    }

    /// Sets the latency of the network.
    pub fn latency(&self, range: std::ops::RangeInclusive<Duration>) {
        self.shared.network.latency(range);
    }

    /// Starts a driver on a machine for drivers; returns once a worker is ready.
    ///
    /// # Errors
    ///
    /// [`WorldError`] if the head does not answer, or if no worker is ready in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a job that ends with its lease.
    pub async fn driver(&self, number: usize) -> Result<SimDriver, WorldError> {
        SimDriver::join(&self.shared, number).await
    }

    /// Checks whether the process of a host runs.
    #[must_use]
    pub fn is_running(&self, host: HostUid) -> bool {
        lock(&self.shared.running).contains(&host)
    }

    /// Time since the last fault of a machine or its end; zero while the machine is cut off.
    #[must_use]
    pub fn calm_for(&self, machine: Machine) -> Duration {
        self.shared.network.calm_for(machine)
    }

    /// Checks whether the agent of a node runs.
    #[must_use]
    pub fn agent_runs(&self, node: usize) -> bool {
        lock(&self.nodes[node]).is_some()
    }

    /// Number of nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Snapshots of the hosts of the head and of the agents that run, each with its machine.
    #[must_use]
    pub fn daemons(&self) -> Vec<(Machine, HostSnapshot)> {
        let head = lock(&self.head);
        let head = head.iter().map(|head| (Machine::Head, head.host.snapshot()));
        let agents = self.nodes.iter().enumerate().filter_map(|(node, agent)| {
            lock(agent).as_ref().map(|agent| (Machine::Node(node), agent.0.host.snapshot()))
        });
        head.chain(agents).collect()
    }

    /// Workers that run or start on a node.
    #[must_use]
    pub fn workers_on(&self, node: usize) -> Vec<WorkerId> {
        lock(&self.nodes[node]).as_ref().map(SimAgent::workers).unwrap_or_default()
    }

    /// Lists of the head; `None` while it does not run.
    #[must_use]
    pub fn lists(&self) -> Option<Lists> {
        let head = lock(&self.head);
        head.as_ref().map(|head| head.control.read(Lists::of))
    }

    /// Ends all processes, and checks that nothing of them is left.
    async fn close(&self) {
        (0..self.nodes.len()).for_each(|node| self.kill_agent(node));
        self.kill_head();
        let ended = async {
            while tasks_alive() > self.tasks_before {
                tokio::time::sleep(CLOSE_INTERVAL).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            let left = tasks_alive() - self.tasks_before;
            self.journal().violation(format_args!("{left} tasks are left of all processes"));
        }
        let left = lock(&self.shared.running).clone();
        if !left.is_empty() {
            self.journal().violation(format_args!("processes are left: {left:?}"));
        }
    }
}

/// Processes to pause.
#[derive(Clone, Copy, Debug)]
pub enum Pausable<'a> {
    /// The head.
    Head,
    /// Agent of a node and its workers.
    Node(usize),
    /// Agent of a node.
    Agent(usize),
    /// Ready worker of a node, with that number.
    Worker(usize, usize),
    /// A driver, with the parts of its [program](SimDriver::program).
    Driver(&'a SimDriver),
}

/// Paused processes. Dropped, they go on; a kill ends them while they are paused.
#[derive(Debug)]
pub struct Paused {
    shared: Arc<Shared>,
    machine: Machine,
    gate: Gate,
    name: String,
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.shared.journal.note(format_args!("{} is resumed", self.name));
        self.shared.network.set_paused(self.machine, false);
        self.gate.set_closed(false);
    }
}

/// Spawns a future on this thread. It is paused with the [program](SimDriver::program) that spawns it.
pub fn spawn_local(future: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(gate::inherit(future));
}

thread_local! {
    /// Beginning of the present run on this thread.
    static BEGINNING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Clock of leases: it is the same for all machines.
fn virtual_time() -> LeaseTime {
    let elapsed = BEGINNING.get().map_or(Duration::ZERO, |beginning| beginning.elapsed());
    LeaseTime::default().after(elapsed)
}

/// Number of live tasks of this thread's runtime.
fn tasks_alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Rows of all tables of the head.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lists {
    /// Nodes, with dead ones.
    pub nodes: Vec<NodeInfo>,
    /// Jobs, with ended ones.
    pub jobs: Vec<JobInfo>,
    /// Workers, with ended ones.
    pub workers: Vec<WorkerSummary>,
    /// Actors, with dead ones.
    pub actors: Vec<ActorInfo>,
    /// Number of actors that wait for a node or a worker.
    pub waiting: usize,
}

impl Lists {
    fn of(state: &ClusterState) -> Self {
        Self {
            nodes: state.nodes(),
            jobs: state.jobs(),
            workers: state.workers(),
            actors: state.actors(),
            waiting: state.waiting_count(),
        }
    }
}
