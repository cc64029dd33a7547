//! Local cluster: workers on this machine that the driver starts, watches, replaces and ends.

pub(super) mod control_plane;
pub(super) mod output;
mod start;
mod state_holder;
pub(super) mod thread_worker;
mod workers;

use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::control_service::{CONTROL, HeadHandle};
use super::io_thread::IoThread;
use super::membership::Membership;
use super::model::NodeId;
use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract;
use crate::cluster::protocol::Variables;
use crate::cluster::worker_info::WorkerInfo;
use crate::config::{Limits, WORKER_STOP_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, fresh_identity};
use crate::observe::log;
use crate::remote::{ClusterRef, actor_services};
use crate::session::Secret;
use crate::transport::{Tcp, Transport};
use control_plane::LocalControlPlane;
use output::LocalOutput;
use start::WorkerSettings;
use state_holder::{HolderSettings, StateHolder};
use thread_worker::InProcess;
use workers::{LocalWorker, WorkerHandle, Workers};

/// Workers of a local cluster, and the thread that watches them. Dropping it ends them.
pub(super) struct LocalCluster {
    workers: Arc<Workers>,
    /// Starts workers in place of ended ones.
    replacing: Option<JoinHandle<()>>,
    /// Announces locations of restarted actors, and the failure of the job.
    announcing: JoinHandle<()>,
    io: IoThread,
}

/// Options of a local cluster.
#[derive(Debug)]
pub(super) struct LocalOptions {
    /// Number of workers, at least one.
    pub(super) workers: usize,
    pub(super) limits: Limits,
    /// Variables added to the workers' environment, which otherwise is that of this process.
    pub(super) environment: Variables,
    pub(super) namespace: String,
    /// Network of workers that are threads; `None` for worker processes.
    pub(super) in_process: Option<InProcess>,
    pub(super) stack_bytes: usize,
    /// Folding of equal lines of several workers; `None` leaves it to the environment.
    pub(super) dedup_logs: Option<bool>,
}

/// Starts the workers and the driver's own host, and sends every worker the list of all.
pub(super) async fn start(options: LocalOptions) -> Result<(ClusterRef, LocalCluster), ClusterError> {
    let LocalOptions { workers: count, limits, environment, namespace, in_process, stack_bytes, dedup_logs } =
        options;
    // Fails early, before any process is started, if the program has no worker entry point.
    if in_process.is_none() {
        contract::arguments()?;
    }
    log::fall_back();
    let io = IoThread::start(stack_bytes)?;
    // A secret of this cluster's own, so that no other process of this machine can connect to its hosts.
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let transport =
        in_process.as_ref().map_or_else(|| Arc::new(Tcp) as Arc<dyn Transport>, InProcess::driver);
    let identity = fresh_identity();
    let holder = StateHolder::new(HolderSettings {
        secret,
        limits: limits.clone(),
        transport: Arc::clone(&transport),
        io: io.handle().clone(),
        node: NodeId(identity.host.0),
    });
    let (head, requests) = LocalControlPlane::new(io.handle(), holder);
    let control = Arc::clone(head.control());
    let host = Host::start(HostConfig {
        identity,
        secret: Secret::from_bytes(secret),
        limits: limits.clone(),
        transport,
        listen: None,
        io: io.handle().clone(),
        executor: Executor::here_or(io.handle()),
        services: Box::new(move |host, service, inbound| match service {
            CONTROL => control.serve(host, inbound),
            _ => actor_services(host, service, inbound),
        }),
    })
    .await?;
    let settings = Arc::new(WorkerSettings { secret, limits, stack_bytes, environment });
    let mut output = None;
    let starting = match in_process {
        Some(network) => start::threads(count, Arc::clone(&settings), network, io.handle().clone()).boxed(),
        None => {
            let node = NodeId(identity.host.0);
            let output = output.insert(LocalOutput::start(io.handle(), node, dedup_logs)?);
            start::processes(count, Arc::clone(&settings), output.display()).boxed()
        }
    };
    // Threads are not replaced.
    let replaces = output.is_some();
    // On the I/O runtime: control sockets and pipes belong to the runtime they were created in, and that of the caller
    // may end before the cluster.
    let ready_workers = background::spawn_on(io.handle(), starting).await;
    let ready_workers = ready_workers.map_err(io::Error::other)??;
    let members = Arc::new(Membership::with_head(
        HeadHandle::Local(Arc::clone(head.control())),
        LocalControlPlane::JOB,
    ));
    host.set_placement(Arc::clone(&members) as _);
    let ready = ready_workers.iter().map(|worker| (worker.handle.pid(), worker.member));
    let (worker_ids, requests, moves) = head.register_workers(&host, namespace, ready.collect(), requests);
    let workers = Workers::new(members, host.clone(), head, settings, output, io.handle().clone());
    let announcing = background::spawn_on(io.handle(), Arc::clone(&workers).announce(moves));
    let mut cluster = LocalCluster { workers, replacing: None, announcing, io };
    // On the I/O thread as well, where the ends of workers are handled: a worker may end meanwhile.
    let workers = Arc::clone(&cluster.workers);
    let introducing = background::spawn_on(cluster.io.handle(), async move {
        for (worker, worker_id) in ready_workers.into_iter().zip(worker_ids) {
            workers.add(worker, worker_id)?;
        }
        workers.introduce_all().await
    });
    introducing.await.map_err(io::Error::other)??;
    if replaces {
        cluster.workers.members().expect_replacements(true);
        let replacing = Arc::clone(&cluster.workers).replace(requests);
        cluster.replacing = Some(background::spawn_on(cluster.io.handle(), replacing));
    }
    Ok((ClusterRef::new(host), cluster))
}

impl LocalCluster {
    pub(super) fn members(&self) -> &Membership {
        self.workers.members()
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        self.workers.info()
    }

    /// Asks all workers to end, and waits up to the stop timeout. Workers that remain are killed.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        // From now on an end is expected, and no reason for a warning or a replacement.
        let mut ending = Ending::of(self);
        if let Some(replacing) = self.replacing.take() {
            replacing.abort();
            // Workers that are starting have ended then. A process that does not end is not waited for.
            let _ = tokio::time::timeout(WORKER_STOP_TIMEOUT, replacing).await;
        }
        join_all(ending.workers.iter_mut().filter_map(|worker| Some(worker.handle.as_mut()?.ask_to_stop())))
            .await;
        let all_ended = join_all(ending.workers.iter_mut().map(|worker| async {
            // The returned guard holds the channel's lock, so it is dropped immediately.
            drop(worker.ended.wait_for(Option::is_some).await);
        }));
        let ended = match tokio::time::timeout(WORKER_STOP_TIMEOUT, all_ended).await {
            Ok(_) => Ok(()),
            // The error names the workers that are left, so it is made before they are killed.
            Err(_) => Err(ending.busy()),
        };
        if ended.is_err() {
            ending.kill();
        }
        if let Some(output) = &mut ending.output {
            output.finish().await;
        }
        ended
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.announcing.abort();
        drop(Ending::of(self));
    }
}

/// Workers of a cluster that ends. Dropping it ends them.
struct Ending {
    workers: Vec<LocalWorker>,
    output: Option<LocalOutput>,
    io: Handle,
}

impl Ending {
    fn of(cluster: &LocalCluster) -> Self {
        let (workers, output) = cluster.workers.take_all();
        Self { workers, output, io: cluster.io.handle().clone() }
    }

    /// Error that names the workers which have not ended in time.
    fn busy(&self) -> ClusterError {
        let left: Vec<_> = self.workers.iter().filter(|worker| worker.ended.borrow().is_none()).collect();
        let limit = WORKER_STOP_TIMEOUT;
        match left.first().and_then(|worker| worker.handle.as_ref()) {
            Some(WorkerHandle::Thread(_)) => {
                let hosts = left.iter().map(|worker| worker.member.actors).collect();
                ClusterError::WorkerBusy { hosts, limit }
            }
            _ => ClusterError::WorkerKilled { pids: left.iter().map(|it| it.pid).collect(), limit },
        }
    }

    /// Kills all worker processes and their descendants.
    fn kill(&self) {
        for worker in &self.workers {
            if let Some(WorkerHandle::Process(process)) = &worker.handle {
                process.kill();
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // All threads are asked before any is joined: they end at the same time.
        for worker in &mut self.workers {
            if let Some(WorkerHandle::Thread(thread)) = &mut worker.handle {
                thread.end();
            }
        }
        self.kill();
        if let Some(output) = &mut self.output {
            output.finish_in_drop(&self.io);
        }
    }
}
