//! Hosts of this process, linked by TCP over loopback: the parts of a cluster without processes.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::prelude::*;
use roadshow::internals::host::{
    Assignment, Executor, Host, HostConfig, HostServices, Placement, PlacementResult, TaskSlot,
    fresh_identity,
};
use roadshow::internals::id::HostUid;
use roadshow::internals::remote::actor_services;
use roadshow::internals::session::Secret;
use roadshow::internals::spec::ActorSpec;
use roadshow::internals::task::TaskService;
use roadshow::internals::transport::Tcp;
use roadshow::{ClusterRef, Limits, RemoteActor, RemoteAddr};
use tokio::runtime::{Builder, Handle};

use crate::subscriber::Subscriber;

/// Maximum time that any step may take before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Shared secret of the hosts in these tests.
pub(crate) const SECRET: [u8; 32] = [7; 32];

/// Loopback address with any free port.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runtime that accepts, dials and times deadlines for all hosts of this process; no handler runs on it.
static IO: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    // The hosts share one runtime: a thread for each of hundreds would be slow.
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
});

/// Runs a test within an actix system, for a bounded time. The subscriber evaluates every log line of the
/// library, and so detects one that would lock again.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    Subscriber::install();
    System::new().block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("a test ends in time") })
}

/// Waits until a condition holds. The time limit of the whole test bounds the wait.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    // Polling is slower than a notification, but works for every kind of state.
    let mut interval = tokio::time::interval(Duration::from_millis(1));
    while !holds() {
        interval.tick().await;
    }
}

/// Waits until more than `time` has passed, so that a deadline is over.
pub(crate) async fn wait_at_least(time: Duration) {
    let since = Instant::now();
    until(|| since.elapsed() > time).await;
}

/// Returns the default limits with some of them changed.
pub(crate) fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

/// Polls a future once; the first poll of a request sends it.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|task| Poll::Ready(Pin::new(&mut *future).poll(task))).await
}

/// Configuration of a host in these tests.
pub(crate) struct Plan {
    pub(crate) identity: HostUid,
    pub(crate) secret: [u8; 32],
    pub(crate) limits: Limits,
    pub(crate) calls: HostServices,
    /// Runtime that accepts, dials and times deadlines.
    pub(crate) io: Handle,
    /// Thread of the host's actors; `None` starts a new one.
    pub(crate) arbiter: Option<ArbiterHandle>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            identity: fresh_identity(),
            secret: SECRET,
            limits: Limits::default(),
            calls: Box::new(actor_services),
            io: IO.clone(),
            arbiter: None,
        }
    }
}

impl Plan {
    /// Configuration of a host that runs tasks.
    pub(crate) fn of_tasks() -> Self {
        let service = TaskService::new(IO.clone());
        Self {
            calls: Box::new(move |host, name, inbound| service.run(host, name, inbound)),
            ..Self::default()
        }
    }

    pub(crate) async fn start(self) -> TestHost {
        // A separate thread, so that a test can block it without blocking itself.
        let own = self.arbiter.is_none().then(Arbiter::new);
        let arbiter = self.arbiter.or_else(|| own.as_ref().map(Arbiter::handle)).unwrap();
        let host = Host::start(HostConfig {
            identity: self.identity,
            secret: Secret::from_bytes(self.secret),
            limits: self.limits,
            transport: Arc::new(Tcp),
            listen: Some(LOOPBACK),
            io: self.io,
            executor: Executor::Arbiter(arbiter.clone()),
            services: self.calls,
        })
        .await
        .unwrap();
        TestHost { cluster: ClusterRef::new(host.clone()), host, arbiter, own }
    }
}

/// Host and the thread of its actors; dropping it ends both.
pub(crate) struct TestHost {
    pub(crate) host: Host,
    pub(crate) cluster: ClusterRef,
    pub(crate) arbiter: ArbiterHandle,
    own: Option<Arbiter>,
}

impl TestHost {
    pub(crate) async fn start() -> Self {
        Plan::default().start().await
    }

    pub(crate) fn identity(&self) -> HostUid {
        self.host.identity()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.host.address().unwrap()
    }

    /// Adds another host and its address to this host's peers.
    pub(crate) fn knows(&self, other: &Self) {
        self.host.add_peer(other.identity(), other.address());
    }

    /// Places every spawned actor and every task on another host.
    pub(crate) fn places_on(&self, there: &Self) {
        self.host.set_placement(Arc::new(Always { host: there.identity(), tasks: Arc::default() }));
    }

    /// Starts an actor on this host's thread and registers it.
    pub(crate) fn serve<A: RemoteActor>(&self, make: impl FnOnce() -> A + Send + 'static) -> RemoteAddr<A> {
        self.cluster.register(A::start_in_arbiter(&self.arbiter, |_| make()))
    }

    /// Returns true if there is a link to the other host.
    pub(crate) fn linked(&self, to: &Self) -> bool {
        self.host.snapshot().peers.iter().any(|peer| peer.identity == to.identity() && peer.linked)
    }

    pub(crate) fn calls_open(&self) -> usize {
        self.host.snapshot().peers.iter().map(|peer| peer.calls_open).sum()
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.host.snapshot().dead_letters
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // No drain: a test that needs one shuts its host down.
        self.host.abort();
        if let Some(arbiter) = &self.own {
            arbiter.stop();
        }
    }
}

/// Two hosts that know each other. Each places its actors on the other.
pub(crate) struct Pair {
    pub(crate) here: TestHost,
    pub(crate) there: TestHost,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::of(Plan::default(), Plan::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let plan = || Plan { limits: limits.clone(), ..Plan::default() };
        Self::of(plan(), plan()).await
    }

    pub(crate) async fn of(here: Plan, there: Plan) -> Self {
        let (here, there) = (here.start().await, there.start().await);
        for (one, other) in [(&here, &there), (&there, &here)] {
            one.knows(other);
            one.places_on(other);
        }
        Self { here, there }
    }

    /// Starts an actor on the far host, and binds its address on the near one.
    pub(crate) fn serve<A: RemoteActor>(&self, make: impl FnOnce() -> A + Send + 'static) -> RemoteAddr<A> {
        self.here.cluster.bind(&self.there.serve(make))
    }
}

#[derive(Debug)]
struct Always {
    host: HostUid,
    tasks: Arc<AtomicUsize>,
}

impl Placement for Always {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        PlacementResult::Now(Ok(Assignment { host: self.host, actor: None, alive: None }))
    }

    fn place_task(&self, _avoided: &[HostUid]) -> Option<TaskSlot> {
        Some(TaskSlot::take(self.host, Arc::clone(&self.tasks)))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}

/// Barrier that blocks threads until it is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    reached: usize,
    open: bool,
}

impl Gate {
    /// Blocks this thread until the gate opens.
    pub(crate) fn pass(&self) {
        let (state, opened) = &*self.0;
        let mut state = state.lock().unwrap();
        state.reached += 1;
        // Bounded, since the test's timeout cannot end a blocked thread.
        let (state, waited) = opened.wait_timeout_while(state, PATIENCE, |it| !it.open).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "a gate is opened in time");
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until `threads` threads have reached the gate.
    pub(crate) async fn reached_by(&self, threads: usize) {
        until(|| self.0.0.lock().unwrap().reached >= threads).await;
    }
}

/// Opens the gate when the test panics: a thread blocked there would hang the test process.
impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A poisoned lock means that the waiting thread has panicked as well.
            if let Ok(mut state) = self.0.0.lock() {
                state.open = true;
            }
            self.0.1.notify_all();
        }
    }
}
