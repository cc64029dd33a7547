//! Local cluster: workers on this machine that the driver starts, watches and ends.

pub(super) mod control_plane;
pub(super) mod output;
pub(super) mod thread_worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::{join_all, try_join_all};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::control_plane::state::ControlEvent;
use super::control_service::{CONTROL, HeadHandle};
use super::io_thread::IoThread;
use super::launch::process::{WorkerCommand, WorkerProcess};
use super::membership::Membership;
use super::model::{NodeId, WorkerAddress, WorkerId};
use super::output::Display;
use super::protocol::worker::{HeadInfo, WorkerInit, WorkerMessage};
use super::worker::hosts::HostEndpoint;
use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract;
use crate::cluster::launch::control_socket::Reports;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::Variables;
use crate::cluster::worker_info::WorkerInfo;
use crate::config::{Limits, OUTPUT_FLUSH_TIMEOUT, WORKER_STOP_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, NotDelivered, fresh_identity};
use crate::id::HostUid;
use crate::observe::log;
use crate::remote::{ClusterRef, SharedArgs, actor_services, ask_host_shared};
use crate::session::Secret;
use crate::transport::{Tcp, Transport};
use control_plane::LocalControlPlane;
use output::{LocalOutput, Pipes, WorkerOutput};
use thread_worker::{InProcess, WorkerThread};

/// Workers of a local cluster, and the thread that watches them. Dropping it ends them.
pub(super) struct LocalCluster {
    members: Arc<Membership>,
    workers: Vec<LocalWorker>,
    /// Output of the workers; `None` if they are threads.
    output: Option<LocalOutput>,
    stopping: Arc<AtomicBool>,
    io: IoThread,
}

/// Worker that is ready, with the capture of its output if it is a process.
struct ReadyWorker {
    handle: WorkerHandle,
    member: WorkerAddress,
    output: Option<WorkerOutput>,
}

/// Worker of the cluster, running or ended.
struct LocalWorker {
    handle: WorkerHandle,
    member: WorkerAddress,
    /// Cause of its end, once it has ended.
    ended: watch::Receiver<Option<String>>,
    stopped: Arc<AtomicBool>,
}

/// Process or threads of a worker.
enum WorkerHandle {
    Process(WorkerProcess),
    Thread(WorkerThread),
}

impl WorkerHandle {
    fn pid(&self) -> u32 {
        match self {
            Self::Process(process) => process.pid(),
            Self::Thread(_) => std::process::id(),
        }
    }

    fn on_exit(&mut self, stopped: &Arc<AtomicBool>) -> io::Result<oneshot::Receiver<String>> {
        match self {
            Self::Process(process) => {
                let (pid, paused) = (process.pid(), Arc::clone(stopped));
                process.on_exit(move |stopped| {
                    paused.store(stopped, Ordering::Relaxed);
                    let change =
                        if stopped { "is stopped by a signal until it is continued" } else { "continues" };
                    log::warn!(pid, "a worker {change}");
                })
            }
            Self::Thread(thread) => Ok(thread.on_exit()),
        }
    }

    /// Passes the worker's reports to `take`.
    fn on_report(&mut self, take: impl FnMut(WorkerMessage) + Send + 'static) -> Option<Reports> {
        match self {
            Self::Process(process) => Some(process.on_report(take)),
            Self::Thread(thread) => {
                thread.on_report(take);
                None
            }
        }
    }

    async fn ask_to_stop(&mut self) {
        match self {
            Self::Process(process) => process.ask_to_stop().await,
            Self::Thread(thread) => thread.ask_to_stop(),
        }
    }
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
    let head = LocalControlPlane::new(io.handle());
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
    let inits = (0..count).map(|_| worker_init(secret, &limits, stack_bytes)).collect();
    let mut output = None;
    let starting = match in_process {
        Some(network) => start_threads(inits, network, io.handle().clone()).boxed(),
        None => {
            let node = NodeId(identity.host.0);
            let output = output.insert(LocalOutput::start(io.handle(), node, dedup_logs)?);
            start_processes(inits, environment, output.display()).boxed()
        }
    };
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
    let worker_ids = head.register_workers(&host, namespace, ready.collect());
    let mut cluster = LocalCluster {
        members: Arc::clone(&members),
        workers: Vec::new(),
        output,
        stopping: Arc::default(),
        io,
    };
    for (worker, worker_id) in ready_workers.into_iter().zip(worker_ids) {
        cluster.add(worker, worker_id, &members, &host, &head)?;
    }
    cluster.announce_members(&members, &host).await?;
    Ok((ClusterRef::new(host), cluster))
}

/// Initialisation of a worker, with fresh host ids.
fn worker_init(secret: [u8; 32], limits: &Limits, stack_bytes: usize) -> WorkerInit {
    WorkerInit {
        secret,
        limits: limits.clone(),
        stack_bytes,
        actors: fresh_identity(),
        tasks: fresh_identity(),
        node: None,
    }
}

async fn start_threads(
    inits: Vec<WorkerInit>,
    network: InProcess,
    io: Handle,
) -> Result<Vec<ReadyWorker>, ClusterError> {
    try_join_all((0..).zip(inits).map(|(number, init)| {
        let (transport, listen) = network.worker(number);
        start_thread(init, HostEndpoint { transport, listen, io: io.clone() })
    }))
    .await
}

async fn start_processes(
    inits: Vec<WorkerInit>,
    environment: Variables,
    display: (Display, NodeId),
) -> Result<Vec<ReadyWorker>, ClusterError> {
    let mut outputs = Vec::with_capacity(inits.len());
    let ready_workers = async {
        let mut started = Vec::with_capacity(inits.len());
        for init in &inits {
            let Pipes { read, stdout, stderr } = Pipes::new()?;
            let process =
                WorkerProcess::start(WorkerCommand::this_executable(environment.clone(), stderr.into())?)?;
            outputs.push(WorkerOutput::start(display.clone(), process.pid(), read)?);
            started.push(initialise(process, init, stdout.into()));
        }
        // Awaited after all are started, so that they initialise at the same time.
        try_join_all(started).await
    };
    match ready_workers.await {
        Ok(ready_workers) => {
            let with_output = ready_workers.into_iter().zip(outputs);
            let ready_workers = with_output.map(|((handle, member), output)| ReadyWorker {
                handle,
                member,
                output: Some(output),
            });
            Ok(ready_workers.collect())
        }
        Err(error) => {
            // The processes have ended by now. Their last lines may explain more than the error does.
            join_all(outputs.into_iter().map(WorkerOutput::finish)).await;
            display.0.flush(Instant::now() + OUTPUT_FLUSH_TIMEOUT).await;
            Err(error)
        }
    }
}

async fn initialise(
    process: WorkerProcess,
    init: &WorkerInit,
    stdout: OwnedFd,
) -> Result<(WorkerHandle, WorkerAddress), ClusterError> {
    let report = process.initialise(init, Some(stdout)).await?;
    let member = member(init.actors, init.tasks, report, process.pid())?;
    Ok((WorkerHandle::Process(process), member))
}

async fn start_thread(init: WorkerInit, endpoint: HostEndpoint) -> Result<ReadyWorker, ClusterError> {
    let (actors, tasks) = (init.actors, init.tasks);
    let (thread, report) = WorkerThread::start(init, endpoint).await?;
    let member = member(actors, tasks, report, std::process::id())?;
    Ok(ReadyWorker { handle: WorkerHandle::Thread(thread), member, output: None })
}

fn member(
    actors: HostUid,
    tasks: HostUid,
    report: WorkerMessage,
    pid: u32,
) -> Result<WorkerAddress, ClusterError> {
    match report {
        WorkerMessage::Ready { actors_at, tasks_at } => {
            Ok(WorkerAddress { actors, actors_at, tasks, tasks_at })
        }
        WorkerMessage::Failed { why } => Err(ClusterError::Worker { pid, cause: why }),
        other => {
            let cause = format!("it reported {other:?} before it was ready");
            Err(ClusterError::Worker { pid, cause })
        }
    }
}

impl LocalCluster {
    /// Adds a worker to the cluster, and watches for its end.
    fn add(
        &mut self,
        ReadyWorker { mut handle, member, output }: ReadyWorker,
        worker_id: WorkerId,
        members: &Arc<Membership>,
        host: &Host,
        head: &LocalControlPlane,
    ) -> Result<(), ClusterError> {
        let runtime = self.io.handle().clone();
        let stopped = Arc::default();
        let watched = handle.on_exit(&stopped)?;
        let (report_end, ended) = watch::channel(None);
        let (pid, stopping) = (handle.pid(), Arc::clone(&self.stopping));
        let (members, host) = (Arc::clone(members), host.clone());
        let control = Arc::clone(head.control());
        let _within = runtime.enter();
        let (names, mut take) = (output.as_ref().map(WorkerOutput::names), head.report_handler(worker_id));
        let reports = handle.on_report(move |report| {
            names.iter().for_each(|take| take(&report));
            take(report);
        });
        if let (Some(all), Some(output)) = (&mut self.output, output) {
            all.add(&runtime, output, ended.clone());
        }
        background::spawn_on(&runtime, async move {
            let Ok(cause) = watched.await else { return };
            let reported = match reports {
                Some(reports) => reports.last().await,
                None => None,
            };
            // The worker's own account says more than its exit status.
            let cause = reported.unwrap_or(cause);
            let change = MembershipUpdate::Left { member, cause: format!("worker {pid}: {cause}") };
            let is_unexpected = !stopping.load(Ordering::Relaxed);
            if is_unexpected {
                // Before `ended` is set. Code that has seen the end must not be given this worker by a placement.
                members.apply(&change, &host);
            }

            report_end.send_replace(Some(cause.clone()));
            control.apply(ControlEvent::WorkerEnded { worker: worker_id, cause: cause.clone() });
            if is_unexpected {
                log::warn!(pid, cause, "a worker has ended");
                broadcast(&host, &members, change).await;
            }
        });
        self.workers.push(LocalWorker { handle, member, ended, stopped });
        Ok(())
    }

    /// Sends every worker the list of all, and applies it here.
    async fn announce_members(&self, members: &Membership, host: &Host) -> Result<(), ClusterError> {
        let all: Vec<_> = self.workers.iter().map(|worker| worker.member).collect();
        let head = HeadInfo {
            head: host.identity(),
            at: None,
            job: LocalControlPlane::JOB,
            tracks_all_actors: false,
        };
        let change = MembershipUpdate::Snapshot { members: all, head };
        members.apply(&change, host);
        let change = SharedArgs::new(&change, host.limits().frame_bytes_max).map_err(|error| {
            let source = NotDelivered::from(error).into();
            ClusterError::Introduce { pid: std::process::id(), source }
        })?;
        try_join_all(self.workers.iter().flat_map(|worker| {
            let pid = worker.handle.pid();
            let change = &change;
            hosts_of(&worker.member).map(|to| async move {
                let sent: Result<(), _> = ask_host_shared(host, to, MEMBERSHIP, change.clone()).await;
                sent.map_err(|source| ClusterError::Introduce { pid, source })
            })
        }))
        .await?;
        Ok(())
    }

    pub(super) fn members(&self) -> &Membership {
        &self.members
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        let info = |worker: &LocalWorker| WorkerInfo {
            host: worker.member.actors,
            tasks: worker.member.tasks,
            pid: worker.handle.pid(),
            address: worker.member.actors_at,
            ended: worker.ended.borrow().clone(),
            stopped: worker.stopped.load(Ordering::Relaxed),
        };
        self.workers.iter().map(info).collect()
    }

    /// Asks all workers to end, and waits up to the stop timeout. Workers that remain are killed.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        // Before the request: from now on an end is expected, and no reason for a warning.
        self.stopping.store(true, Ordering::Relaxed);
        join_all(self.workers.iter_mut().map(|worker| worker.handle.ask_to_stop())).await;
        let all_ended = join_all(self.workers.iter_mut().map(|worker| async {
            // The returned guard holds the channel's lock, so it is dropped immediately.
            drop(worker.ended.wait_for(Option::is_some).await);
        }));
        if tokio::time::timeout(WORKER_STOP_TIMEOUT, all_ended).await.is_ok() {
            self.finish_output().await;
            return Ok(());
        }
        // The error names the workers that are left, so it is made before they are killed.
        let error = self.busy();
        self.kill();
        self.finish_output().await;
        Err(error)
    }

    async fn finish_output(&mut self) {
        if let Some(output) = &mut self.output {
            output.finish().await;
        }
    }

    /// Error that names the workers which have not ended in time.
    fn busy(&self) -> ClusterError {
        let left: Vec<_> = self.workers.iter().filter(|worker| worker.ended.borrow().is_none()).collect();
        let limit = WORKER_STOP_TIMEOUT;
        match left.first().map(|worker| &worker.handle) {
            Some(WorkerHandle::Thread(_)) => {
                let hosts = left.iter().map(|worker| worker.member.actors).collect();
                ClusterError::WorkerBusy { hosts, limit }
            }
            _ => ClusterError::WorkerKilled { pids: left.iter().map(|it| it.handle.pid()).collect(), limit },
        }
    }

    /// Kills all worker processes and their descendants.
    fn kill(&self) {
        for worker in &self.workers {
            if let WorkerHandle::Process(process) = &worker.handle {
                process.kill();
            }
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // All threads are asked before any is joined: they end at the same time.
        for worker in &mut self.workers {
            if let WorkerHandle::Thread(thread) = &mut worker.handle {
                thread.end();
            }
        }
        self.kill();
        if let Some(output) = &mut self.output {
            output.finish_in_drop(self.io.handle());
        }
    }
}

fn hosts_of(member: &WorkerAddress) -> [HostUid; 2] {
    [member.actors, member.tasks]
}

/// Sends a change to the live workers.
async fn broadcast(host: &Host, members: &Membership, change: MembershipUpdate) {
    let change = match SharedArgs::new(&change, host.limits().frame_bytes_max) {
        Ok(change) => change,
        Err(error) => return log::warn!(%error, "a membership change cannot be encoded; workers miss it"),
    };
    let sent = members.list().into_iter().flat_map(|member| hosts_of(&member)).map(|to| {
        let change = change.clone();
        async move {
            let sent: Result<(), _> = ask_host_shared(host, to, MEMBERSHIP, change).await;
            if let Err(error) = sent {
                log::debug!(%to, %error, "a worker did not receive a membership change");
            }
        }
    });
    join_all(sent).await;
}
