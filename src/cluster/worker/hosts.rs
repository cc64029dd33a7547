//! Hosts of a worker, in a process or a thread: one for actors and one for tasks.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::background;
use crate::cluster::authorization;
use crate::cluster::error::ClusterError;
use crate::cluster::host_info;
use crate::cluster::membership::Membership;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::{HeadInfo, WorkerInit, WorkerMessage};
use crate::cluster::worker::statistics::{StatisticsReporter, StatisticsSink};
use crate::config::{INBOUND_PEER_EXPIRY, Limits, STATISTICS_INTERVAL, WORKER_STOP_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, HostServices, Leases, LifecycleObserver};
use crate::id::HostUid;
use crate::remote::actor_services;
use crate::session::Secret;
use crate::task::TaskService;
use crate::transport::Transport;

/// Transport and listening address of a host, and the runtime that accepts and dials for it.
#[derive(Clone, Debug)]
pub(crate) struct HostEndpoint {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) listen: SocketAddr,
    pub(crate) io: Handle,
}

/// Endpoints of a worker's two hosts, and the head that they know from the start.
#[derive(Clone, Debug)]
pub(crate) struct WorkerEndpoints {
    /// Head of a cluster of nodes; `None` in a local cluster, whose driver is the head.
    pub(crate) head: Option<HeadInfo>,
    pub(crate) actors: HostEndpoint,
    pub(crate) tasks: HostEndpoint,
}

/// Recipients of a worker's reports.
#[derive(Debug)]
pub(crate) struct Observers {
    pub(crate) lifecycle: Arc<dyn LifecycleObserver>,
    /// `None` in a local cluster, which has no head.
    pub(crate) statistics: Option<Arc<dyn StatisticsSink>>,
}

/// Executors of the threads that run a worker's user code, and the leases under which exclusive actors run there.
#[derive(Debug)]
pub(crate) struct Executors {
    pub(crate) actors: Executor,
    pub(crate) tasks: Executor,
    pub(crate) leases: Arc<Leases>,
}

/// Cause of the end of a worker's hosts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The parent requested it, or has ended.
    Asked,
    /// The worker itself, for this reason.
    Because(String),
}

/// Runs a worker's hosts until they end; runs on the I/O thread, beside the threads of user code.
///
/// Reports the listening addresses once both hosts are up. The hosts shut down gracefully when `stop` is sent. They
/// abort when it is dropped, or when a thread of user code ends (`thread_end`).
pub(crate) async fn serve(
    init: WorkerInit,
    endpoints: WorkerEndpoints,
    executors: Executors,
    observers: Observers,
    report: impl FnOnce(WorkerMessage) -> io::Result<()>,
    stop: oneshot::Receiver<()>,
    thread_end: impl Future<Output = String>,
) -> Result<Ended, ClusterError> {
    let hosts = WorkerHosts::start(&init, endpoints, executors, observers).await?;
    hosts.serve(report, stop, thread_end).await
}

/// Both hosts of a worker, which run until they are served to their end.
pub(crate) struct WorkerHosts {
    pub(crate) actors: Host,
    pub(crate) tasks: Host,
    reporter: Option<Arc<StatisticsReporter>>,
    io: Handle,
}

impl WorkerHosts {
    pub(crate) async fn start(
        init: &WorkerInit,
        endpoints: WorkerEndpoints,
        executors: Executors,
        observers: Observers,
    ) -> Result<Self, ClusterError> {
        let WorkerEndpoints { head, actors: actors_at, tasks: tasks_at } = endpoints;
        let task_service = Arc::new(TaskService::new(tasks_at.io.clone()));
        // Weak: the host's closure owns the service, and the reporter must not keep it alive after the host.
        let service = Arc::downgrade(&task_service);
        let run_tasks: HostServices =
            Box::new(move |host, name, inbound| task_service.run(host, name, inbound));
        let run_actors = Box::new(actor_services);
        let actors = start(init, head, &actors_at, init.actors, executors.actors, run_actors).await?;
        let tasks = start(init, head, &tasks_at, init.tasks, executors.tasks, run_tasks).await?;
        let reporter = observers
            .statistics
            .map(|sink| Arc::new(StatisticsReporter::new(service, [&actors, &tasks], sink)));
        actors.set_lifecycle_observer(observers.lifecycle);
        actors.set_leases(executors.leases);
        Ok(Self { actors, tasks, reporter, io: tasks_at.io })
    }

    /// Serves until the end, as [`serve`] describes it.
    pub(crate) async fn serve(
        self,
        report: impl FnOnce(WorkerMessage) -> io::Result<()>,
        stop: oneshot::Receiver<()>,
        thread_end: impl Future<Output = String>,
    ) -> Result<Ended, ClusterError> {
        let Self { actors, tasks, reporter, io: runtime } = self;
        let (Some(actors_at), Some(tasks_at)) = (actors.address(), tasks.address()) else {
            return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
        };
        report(WorkerMessage::Ready { actors_at, tasks_at })?;
        // After the report: the parent expects no other before it.
        if let Some(reporter) = reporter.clone() {
            background::spawn_on(&runtime, async move {
                while reporter.report_changes() {
                    tokio::time::sleep(STATISTICS_INTERVAL).await;
                }
            });
        }
        // Concurrently: each may use all of its drain timeout.
        let graceful = async {
            if stop.await.is_ok() {
                // The shutdown drops the actors, and their counts with them.
                if let Some(reporter) = &reporter {
                    reporter.report_changes();
                }
                tokio::join!(actors.shutdown("the worker ends"), tasks.shutdown("the worker ends"));
            }
        };
        let ended = tokio::select! {
            () = graceful => Ended::Asked,
            cause = thread_end => Ended::Because(cause),
        };
        // The last counts would be missing from `roadshow summary` otherwise: the next interval never comes.
        if let Some(reporter) = reporter {
            reporter.report_last();
        }
        actors.abort();
        tasks.abort();
        Ok(ended)
    }
}

/// Starts a host that also serves the cluster's membership.
async fn start(
    init: &WorkerInit,
    head: Option<HeadInfo>,
    endpoint: &HostEndpoint,
    identity: HostUid,
    executor: Executor,
    services: HostServices,
) -> Result<Host, ClusterError> {
    let mut limits: Limits = init.limits.clone();
    // The drain must end before the parent kills the worker, which it does WORKER_STOP_TIMEOUT after its request.
    // A node ends within a second, even if a peer does not answer: there the drain gets half as long.
    let most = if head.is_some() { WORKER_STOP_TIMEOUT / 4 } else { WORKER_STOP_TIMEOUT / 2 };
    limits.drain_timeout = limits.drain_timeout.min(most);
    let members = Arc::new(Membership::default());
    let head = head.map(MembershipUpdate::Head);
    let membership = Arc::clone(&members);
    let host = Host::start(HostConfig {
        identity,
        secret: Secret::from_bytes(init.secret),
        limits,
        transport: Arc::clone(&endpoint.transport),
        listen: Some(endpoint.listen),
        io: endpoint.io.clone(),
        executor,
        services: Box::new(move |host, service, inbound| {
            match authorization::check(host, service, &inbound) {
                Err(refused) => inbound.fail(&refused),
                Ok(()) if service == MEMBERSHIP => membership.serve(host, inbound),
                Ok(()) => services(host, service, inbound),
            }
        }),
    })
    .await?;
    if let Some(head) = head {
        members.apply(&head, &host);
        host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
    }
    host.set_placement(members);
    host.set_memory_reader(Box::new(host_info::memory_use));
    Ok(host)
}
