//! Tests of placement requests over a slow network, between a requesting host and the head's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::cluster::control_plane::state::{ClusterState, ControlEvent, Settings, Ticket};
use crate::cluster::control_service::{ControlPlane, Persistence};
use crate::cluster::listing::Query;
use crate::cluster::membership::Membership;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    ActorSpec, ActorState, JobDescriptor, JobId, NodeDescriptor, NodeId, Resources, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::HeadInfo;
use crate::config::Limits;
use crate::host::{
    Executor, HostConfig, HostServices, Placement, PlacementError, PlacementResult, fresh_identity,
};
use crate::id::{HostId, TypeHash};
use crate::remote::actor_services;
use crate::session::Secret;
use crate::spec::{Recipe, Restart};
use crate::transport::Memory;
use crate::wire::Payload;

/// Latency of the network in one direction.
const LATENCY: Duration = Duration::from_millis(100);

const JOB: JobId = JobId(1);
const NODE: HostId = HostId(7);

struct TestCluster {
    control: Arc<ControlPlane>,
    members: Membership,
    requester: Host,
}

async fn host(
    network: &Memory,
    at: [u8; 4],
    identity: HostUid,
    listen: Option<SocketAddr>,
    services: HostServices,
) -> Host {
    let io = tokio::runtime::Handle::current();
    let config = HostConfig {
        identity,
        secret: Secret::from_bytes([1; 32]),
        limits: Limits::default(),
        transport: Arc::new(network.at(Ipv4Addr::from(at))),
        listen,
        io: io.clone(),
        executor: Executor::Runtime(io),
        services,
    };
    Host::start(config).await.unwrap()
}

fn address(at: [u8; 4]) -> SocketAddr {
    SocketAddr::from((at, 1))
}

/// Control plane with a node of four CPUs, on which the job has one worker.
fn control_with(persistence: Option<Persistence>, caller: Option<HostUid>) -> Arc<ControlPlane> {
    let control = Arc::new(ControlPlane::new(Settings::default(), Box::new(|_| {}), persistence));
    let agent = HostUid { host: NODE, ..fresh_identity() };
    let descriptor = NodeDescriptor {
        agent,
        address: address([10, 0, 0, 3]),
        hostname: String::new(),
        pid: 1,
        is_head: false,
        resources: Resources::none().with(Resources::CPU, 4.0),
        labels: Default::default(),
        workers: 1,
        platform: String::new(),
        session_dir: String::new(),
    };
    control.apply(ControlEvent::NodeJoined(NodeReport::idle(descriptor)));
    let descriptor = JobDescriptor {
        entrypoint: String::new(),
        hostname: String::new(),
        pid: 1,
        driver: None,
        user_host: caller,
        namespace: "own".to_owned(),
        runs_on: None,
    };
    control.apply(ControlEvent::JobStarted { ticket: Ticket(0), job: None, descriptor });
    control.apply(ControlEvent::NodeProvisioned { job: JOB, node: NodeId(NODE.0) });
    let at = address([10, 0, 0, 3]);
    let member =
        WorkerAddress { actors: fresh_identity(), actors_at: at, tasks: fresh_identity(), tasks_at: at };
    control.apply(ControlEvent::WorkerReady { worker: WorkerId(1), member, pid: 1 });
    control
}

impl TestCluster {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(persistence: Option<Persistence>) -> Self {
        let (network, caller) = (Memory::new(1), fresh_identity());
        let control = control_with(persistence, Some(caller));
        let (head_id, head_at) = (fresh_identity(), [10, 0, 0, 1]);
        let served = Arc::clone(&control);
        let services: HostServices = Box::new(move |host, _, inbound| served.serve(host, inbound));
        let head = host(&network, head_at, head_id, Some(address(head_at)), services).await;
        // The host lives as long as its links.
        std::mem::forget(head);
        let requester = host(&network, [10, 0, 0, 2], caller, None, Box::new(actor_services)).await;
        let members = Membership::default();
        let head = HeadInfo { head: head_id, at: Some(address(head_at)), job: JOB, tracks_all_actors: true };
        members.apply(&MembershipUpdate::Head(head), &requester);
        let cluster = Self { control, members, requester };
        // Establishes the link before the network slows down.
        assert!(cluster.ask(ControlRequest::Nodes(Query::default())).await.is_ok());
        network.latency(LATENCY..=LATENCY);
        cluster
    }

    async fn ask(&self, request: ControlRequest) -> Result<ControlReply, PlacementError> {
        self.members.ask(&self.requester, request).await
    }

    fn spec(cpus: f64) -> ActorSpec {
        ActorSpec { resources: Resources::none().with(Resources::CPU, cpus), ..ActorSpec::default() }
    }

    /// Requests a worker, and cancels after `patience`.
    async fn place_within(&self, cpus: f64, patience: Duration) -> bool {
        match self.members.place_actor(&self.requester, "Actor", Some(&Self::spec(cpus))) {
            PlacementResult::Now(_) => panic!("a head places"),
            PlacementResult::Later(placing) => {
                tokio::time::timeout(patience, placing).await.map(|placed| placed.unwrap()).is_ok()
            }
        }
    }

    fn free_cpus(&self) -> f64 {
        f64::from(self.control.read(ClusterState::nodes)[0].available.0[Resources::CPU])
    }

    fn waiting(&self) -> usize {
        self.control.read(|state| state.waiting(usize::MAX).len())
    }
}

#[tokio::test(start_paused = true)]
async fn assignment_in_flight_to_a_cancelled_request_is_released() {
    let cluster = TestCluster::new().await;
    // Cancelled before the request arrives, while it is answered, and while the reply is on its way.
    for after in [10, 50, 99, 100, 101, 150, 190, 199] {
        let started = tokio::time::Instant::now();
        assert!(!cluster.place_within(1.0, Duration::from_millis(after)).await, "after {after} ms");
        tokio::time::sleep(5 * LATENCY).await;
        assert_eq!(cluster.free_cpus(), 4.0, "after {after} ms");
        assert!(started.elapsed() < 2 * HEAD_RPC_TIMEOUT);
    }
    assert_eq!(cluster.requester.snapshot().peers[0].calls_open, 0);
    assert!(cluster.place_within(4.0, 3 * LATENCY).await);
    assert_eq!(cluster.free_cpus(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_pending_request_blocks_no_other() {
    let cluster = TestCluster::new().await;
    assert!(cluster.place_within(3.0, 3 * LATENCY).await);
    assert!(!cluster.place_within(2.0, 3 * LATENCY).await);
    tokio::time::sleep(2 * LATENCY).await;
    assert_eq!((cluster.waiting(), cluster.free_cpus()), (0, 1.0));
    assert!(cluster.place_within(1.0, 3 * LATENCY).await);
    assert_eq!(cluster.requester.snapshot().peers[0].calls_open, 0);
    let dead_actors =
        cluster.control.read(ClusterState::actors).iter().filter(|it| it.state == ActorState::Dead).count();
    assert_eq!(dead_actors, 1);
}

#[test]
fn request_can_be_cancelled_until_it_is_answered() {
    let (requests, from) = (PendingRequests::default(), fresh_identity());
    let request = requests.begin(from, 1);
    requests.cancel(fresh_identity(), 1);
    requests.cancel(from, 2);
    assert_eq!(requests.lock().len(), 1);
    drop(request);
    assert_eq!(requests.lock().len(), 0);
}

#[tokio::test]
async fn placement_is_returned_once_durable_and_released_if_the_write_fails() {
    let place = |name: Option<&str>| {
        let resources = Resources::none().with(Resources::CPU, if name.is_some() { 1.0 } else { 0.0 });
        let spec = ActorSpec { name: name.map(str::to_owned), resources, ..ActorSpec::default() };
        ControlRequest::Place { job: JOB, spec, recipe: None, number: 1 }
    };
    let free = |control: &ControlPlane| {
        f64::from(control.read(|state| state.nodes())[0].available.0[Resources::CPU])
    };
    let full = control_with(Some(Box::new(|| Box::pin(async { Err("the disk is full".to_owned()) }))), None);
    let denied = Arc::clone(&full).request(place(Some("a")), None).await.unwrap_err();
    assert_eq!((denied, free(&full)), (ControlError::NotPersisted("the disk is full".to_owned()), 4.0));
    // An actor without a record does not need the disk.
    assert!(Arc::clone(&full).request(place(None), None).await.is_ok());

    let slow = control_with(Some(Box::new(|| Box::pin(std::future::pending()))), None);
    let mut placing = Box::pin(Arc::clone(&slow).request(place(Some("a")), None));
    tokio::select! {
        biased;
        answer = &mut placing => panic!("{answer:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(free(&slow), 3.0);
    drop(placing);
    assert_eq!(free(&slow), 4.0);
}

#[tokio::test(start_paused = true)]
async fn request_under_way_fails_when_the_job_is_over() {
    let cluster = TestCluster::new().await;
    let over = async {
        tokio::time::sleep(LATENCY).await;
        cluster.members.end_job("it was stopped");
        std::future::pending::<()>().await;
    };
    let started = tokio::time::Instant::now();
    let reply = tokio::select! {
        biased;
        reply = cluster.ask(ControlRequest::Nodes(Query::default())) => reply,
        () = over => unreachable!("it never ends"),
    };
    assert!(matches!(reply, Err(PlacementError::JobEnded { .. })), "{reply:?}");
    assert_eq!(started.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn cancellation_of_a_request_that_has_created_an_actor_waits_for_the_disk() {
    let disk_is_full = Arc::new(AtomicBool::new(true));
    let is_full = Arc::clone(&disk_is_full);
    let persistence: Persistence = Box::new(move || {
        let is_full = is_full.load(Ordering::Relaxed);
        Box::pin(async move { if is_full { Err("the disk is full".to_owned()) } else { Ok(()) } })
    });
    let cluster = TestCluster::with(Some(persistence)).await;
    let spec = ActorSpec { restart: Some(Restart::on_failure()), ..ActorSpec::default() };
    let recipe = Recipe::new(TypeHash(1), &Payload::default(), 1024).unwrap();
    let place = ControlRequest::Place { job: JOB, spec, recipe: Some(recipe), number: 7 };
    assert!(tokio::time::timeout(3 * LATENCY, cluster.ask(place)).await.is_err());
    let cancel = |number| cluster.ask(ControlRequest::Cancel { number });
    let denied = cancel(7).await;
    assert!(matches!(denied, Err(PlacementError::NotPersisted { .. })), "{denied:?}");
    assert!(cancel(8).await.is_ok());
    disk_is_full.store(false, Ordering::Relaxed);
    assert!(cancel(7).await.is_ok());
}
