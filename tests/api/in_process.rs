//! Clusters whose workers are threads of this process behave like others.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use roadshow::Memory;
use roadshow::prelude::*;
use roadshow::{ClusterError, InProcess, Limits};
use tokio::runtime::Builder;

use crate::hosts::{Gate, PATIENCE, limits, run, until};

/// Returns the path of this thread below /proc, which exists as long as the thread.
fn this_thread() -> PathBuf {
    PathBuf::from("/proc").join(std::fs::read_link("/proc/thread-self").unwrap())
}

#[roadshow::task]
fn task_thread() -> PathBuf {
    this_thread()
}

static GATE: LazyLock<Gate> = LazyLock::new(Gate::default);

#[roadshow::task]
fn pass_the_gate() -> PathBuf {
    GATE.pass();
    this_thread()
}

/// Actor that reports its thread and forwards messages.
#[derive(RemoteActor)]
#[remote(handles(Thread, Probe, PassOn))]
struct Resident;

impl Actor for Resident {
    type Context = Context<Self>;
}

impl Spawn for Resident {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "PathBuf")]
struct Thread;

impl Handler<Thread> for Resident {
    type Result = MessageResult<Thread>;

    fn handle(&mut self, _: Thread, _: &mut Context<Self>) -> MessageResult<Thread> {
        MessageResult(this_thread())
    }
}

/// Reports if it was moved or serialized.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
struct Probe {
    // A skipped field arrives as false, unless the value was moved.
    #[serde(skip)]
    unencoded: bool,
}

impl Handler<Probe> for Resident {
    type Result = bool;

    fn handle(&mut self, probe: Probe, _: &mut Context<Self>) -> bool {
        probe.unencoded
    }
}

/// Sends a [`Probe`] to another actor.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<bool, String>")]
struct PassOn(RemoteAddr<Resident>);

impl Handler<PassOn> for Resident {
    type Result = ResponseFuture<Result<bool, String>>;

    fn handle(&mut self, PassOn(to): PassOn, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { to.send(Probe { unencoded: true }).await.map_err(|error| error.to_string()) })
    }
}

async fn start(workers: usize, network: InProcess) -> Cluster {
    // The default would let each shutdown wait for busy workers.
    let short_drain = limits(|limits: &mut Limits| limits.drain_timeout = Duration::from_millis(10));
    Cluster::builder().workers(workers).limits(short_drain).in_process(network).start().await.unwrap()
}

/// Spawns two actors on different workers.
async fn residents(cluster: &Cluster) -> [RemoteAddr<Resident>; 2] {
    [cluster.spawn::<Resident>(()).await.unwrap(), cluster.spawn::<Resident>(()).await.unwrap()]
}

async fn workers_are_hosts_on_threads_of_their_own(network: InProcess) {
    let cluster = start(2, network).await;
    let workers = cluster.workers();
    assert!(workers.iter().all(|worker| worker.pid == std::process::id()));
    let [one, two] = residents(&cluster).await;
    let mut threads = HashSet::from([this_thread()]);
    threads.insert(one.send(Thread).await.unwrap());
    threads.insert(two.send(Thread).await.unwrap());
    threads.extend(cluster.run_all((0..20).map(|_| task_thread::task())).await.unwrap());
    // This thread, and a thread for actors and one for tasks in each worker.
    assert_eq!(threads.len(), 5);

    assert_eq!(one.send(Probe { unencoded: true }).await, Ok(false));
    assert_eq!(one.send(PassOn(two.clone())).await, Ok(Ok(false)));
    assert_eq!(
        one.send(PassOn(one.clone())).await,
        Ok(Ok(true)),
        "a message within a host is not serialized"
    );

    cluster.shutdown().await.unwrap();
    threads.remove(&this_thread());
    // Threads end shortly after the shutdown has returned.
    until(|| !threads.iter().any(|thread| thread.exists())).await;
}

#[test]
fn workers_in_this_process_are_connected_by_memory() {
    run(workers_are_hosts_on_threads_of_their_own(InProcess::Memory(Memory::new(1))));
}

#[test]
fn workers_in_this_process_are_connected_by_tcp() {
    run(workers_are_hosts_on_threads_of_their_own(InProcess::Tcp));
}

#[test]
fn a_program_without_an_actix_system_can_have_in_process_workers() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let resident = cluster.spawn::<Resident>(()).await.unwrap();
        assert_ne!(resident.send(Thread).await.unwrap(), this_thread());
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_partition_can_separate_any_two_workers() {
    run(async {
        let network = Memory::new(2);
        let cluster = start(2, InProcess::Memory(network.clone())).await;
        // In memory, each worker has a separate IP address, which names its end of a partition.
        let ips: Vec<_> = cluster.workers().iter().map(|worker| worker.address.ip()).collect();
        let [one, two] = residents(&cluster).await;
        assert_eq!(one.send(PassOn(two.clone())).await, Ok(Ok(false)));
        network.partition(ips[0], ips[1]);
        let timeout = Duration::from_millis(20);
        let held = one.send(PassOn(two.clone())).timeout(timeout).await;
        assert!(held.unwrap_err().is_outcome_unknown());
        assert_eq!(
            two.send(Probe { unencoded: true }).await,
            Ok(false),
            "the driver's route is not affected"
        );
        network.heal(ips[0], ips[1]);
        assert_eq!(one.send(PassOn(two)).await, Ok(Ok(false)));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn dropping_the_cluster_ends_its_threads() {
    let thread = run(async {
        let cluster = start(1, InProcess::Tcp).await;
        cluster.spawn::<Resident>(()).await.unwrap().send(Thread).await.unwrap()
    });
    let since = Instant::now();
    while thread.exists() {
        assert!(since.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

#[test]
fn shutdown_reports_a_busy_worker_without_waiting_for_it() {
    run(async {
        let cluster = start(1, InProcess::Tcp).await;
        let worker = cluster.workers().remove(0);
        // The shutdown consumes the cluster, so the task needs a handle.
        let handle = cluster.handle();
        let gone = actix_rt::spawn(async move { handle.run(pass_the_gate::task()).await });
        GATE.reached_by(1).await;
        let error = cluster.shutdown().await.unwrap_err();
        let ClusterError::WorkerBusy { hosts, .. } = &error else { panic!("{error}") };
        assert_eq!(hosts, &[worker.host]);
        GATE.open();
        assert!(gone.await.unwrap().is_err());
    });
}
