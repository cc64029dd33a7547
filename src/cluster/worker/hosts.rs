//! What a worker is, whether it is a process or a thread: two hosts, until they are told to end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::cluster::authorization;
use crate::cluster::error::ClusterError;
use crate::cluster::membership::Membership;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::{Report, WorkerInit};
use crate::config::{INBOUND_PEER_EXPIRY, Limits, TASK_STATS_INTERVAL, WORKER_STOP_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, HostServices, LifecycleObserver};
use crate::id::{HostUid, TypeHash};
use crate::lock::Mutex;
use crate::remote::actor_services;
use crate::session::Secret;
use crate::task::{TaskCounts, TaskService};
use crate::transport::Transport;

/// Where a worker's hosts are to be had, and the runtime that accepts and dials for them.
#[derive(Clone, Debug)]
pub(crate) struct HostEndpoint {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) listen: SocketAddr,
    pub(crate) io: Handle,
}

/// Those of the two hosts of a worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerEndpoints {
    pub(crate) actors: HostEndpoint,
    pub(crate) tasks: HostEndpoint,
}

/// The threads that run a worker's user code.
#[derive(Debug)]
pub(crate) struct Executors {
    pub(crate) actors: Executor,
    pub(crate) tasks: Executor,
}

/// How a worker's hosts came to their end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The parent asked for it, or has ended.
    Asked,
    /// By itself.
    Because(String),
}

/// Runs a worker's hosts. Itself it runs beside user code, not on its threads.
///
/// Reports where the hosts listen. They end in order when `stop` is sent, and immediately when it is dropped or
/// when a thread of user code is `over`.
pub(crate) async fn serve(
    bootstrap: WorkerInit,
    sites: WorkerEndpoints,
    executors: Executors,
    lives: Arc<dyn LifecycleObserver>,
    report: impl FnOnce(Report) -> io::Result<()>,
    stop: oneshot::Receiver<()>,
    over: impl Future<Output = String>,
) -> Result<Ended, ClusterError> {
    let task_service = Arc::new(TaskService::new(sites.tasks.io.clone()));
    let counted = Arc::downgrade(&task_service);
    let run_tasks: HostServices = Box::new(move |host, name, inbound| task_service.run(host, name, inbound));
    let of_actors = Box::new(actor_services);
    let actors = start(&bootstrap, &sites.actors, bootstrap.actors, executors.actors, of_actors).await?;
    let tasks = start(&bootstrap, &sites.tasks, bootstrap.tasks, executors.tasks, run_tasks).await?;
    let counting = Arc::new(TaskStatsReporter {
        service: counted,
        host: tasks.clone(),
        lives: Arc::clone(&lives),
        reported: Mutex::default(),
    });
    if bootstrap.node.is_some() {
        let counting = Arc::clone(&counting);
        sites.tasks.io.spawn(async move {
            while counting.report_changes() {
                tokio::time::sleep(TASK_STATS_INTERVAL).await;
            }
        });
    }
    actors.set_lifecycle_observer(Arc::clone(&lives));
    let (Some(actors_at), Some(tasks_at)) = (actors.address(), tasks.address()) else {
        return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
    };
    report(Report::Ready { actors_at, tasks_at })?;
    let asked = async {
        if stop.await.is_ok() {
            tokio::join!(actors.shutdown("the worker ends"), tasks.shutdown("the worker ends"));
        }
    };
    let ended = tokio::select! {
        () = asked => Ended::Asked,
        cause = over => Ended::Because(cause),
    };
    if bootstrap.node.is_some() {
        counting.report_changes();
        lives.flush();
    }
    actors.abort();
    tasks.abort();
    Ok(ended)
}

/// What a host of tasks has told of them.
struct TaskStatsReporter {
    service: Weak<TaskService>,
    host: Host,
    lives: Arc<dyn LifecycleObserver>,
    reported: Mutex<FxHashMap<TypeHash, TaskCounts>>,
}

impl TaskStatsReporter {
    /// Tells how many tasks there have been, where that has changed. `false` once nobody runs any.
    fn report_changes(&self) -> bool {
        let Some(service) = self.service.upgrade() else { return false };
        let mut told = self.reported.lock();
        for (name, counts) in service.counts() {
            if told.insert(name, counts) != Some(counts) {
                let TaskCounts { queued, running, finished, failed } = counts;
                self.lives.tasks(self.host.registry().name_of(name), [queued, running, finished, failed]);
            }
        }
        true
    }
}

/// A host that also takes part in the cluster's membership.
async fn start(
    bootstrap: &WorkerInit,
    site: &HostEndpoint,
    identity: HostUid,
    executor: Executor,
    calls: HostServices,
) -> Result<Host, ClusterError> {
    let mut limits: Limits = bootstrap.limits.clone();
    // When a worker is asked to end, its own farewells have to be over before it is killed. A node ends
    // within a second, whoever does not answer any more.
    let most = if bootstrap.node.is_some() { WORKER_STOP_TIMEOUT / 4 } else { WORKER_STOP_TIMEOUT / 2 };
    limits.drain_timeout = limits.drain_timeout.min(most);
    let members = Arc::new(Membership::default());
    let head = bootstrap.node.as_ref().map(|node| MembershipUpdate::Head(node.head));
    let told = Arc::clone(&members);
    let host = Host::start(HostConfig {
        identity,
        secret: Secret::from_bytes(bootstrap.secret),
        limits,
        transport: Arc::clone(&site.transport),
        listen: Some(site.listen),
        io: site.io.clone(),
        executor,
        services: Box::new(move |host, service, inbound| {
            match authorization::check(host, service, &inbound) {
                Err(refused) => inbound.fail(&refused),
                Ok(()) if service == MEMBERSHIP => told.serve(host, inbound),
                Ok(()) => calls(host, service, inbound),
            }
        }),
    })
    .await?;
    if let Some(head) = head {
        members.apply(&head, &host);
        host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
    }
    host.set_placement(members);
    Ok(host)
}
