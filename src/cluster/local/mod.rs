//! A cluster on this machine: workers that the driver starts, watches and ends.

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

use super::control_plane::state::Event;
use super::control_service::{CONTROL, HeadHandle};
use super::io_thread::IoThread;
use super::launch::process::{WorkerCommand, WorkerProcess};
use super::membership::Membership;
use super::model::{NodeId, WorkerAddress, WorkerId};
use super::output::Display;
use super::protocol::worker::{HeadInfo, Report, WorkerInit};
use super::worker::hosts::HostEndpoint;
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

/// The workers, and the thread that watches them. Dropping it ends them.
pub(super) struct LocalCluster {
    members: Arc<Membership>,
    workers: Vec<Worker>,
    /// None where the workers are threads.
    output: Option<LocalOutput>,
    stopping: Arc<AtomicBool>,
    io: IoThread,
}

/// A worker that is ready, and what captures its output if it is a process.
struct Booted {
    handle: WorkerHandle,
    member: WorkerAddress,
    output: Option<WorkerOutput>,
}

struct Worker {
    body: WorkerHandle,
    member: WorkerAddress,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    stopped: Arc<AtomicBool>,
}

/// What a worker lives in.
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

    fn watch(&mut self, stopped: &Arc<AtomicBool>) -> io::Result<oneshot::Receiver<String>> {
        match self {
            Self::Process(process) => {
                let (pid, paused) = (process.pid(), Arc::clone(stopped));
                process.on_exit(move |stopped| {
                    paused.store(stopped, Ordering::Relaxed);
                    let what =
                        if stopped { "is stopped, and answers when it is continued" } else { "goes on" };
                    log::warn!(pid, "a worker {what}");
                })
            }
            Self::Thread(thread) => Ok(thread.watch()),
        }
    }

    /// Hands on what the worker reports.
    fn listen(&mut self, take: impl FnMut(Report) + Send + 'static) -> Option<Reports> {
        match self {
            Self::Process(process) => Some(process.on_report(take)),
            Self::Thread(thread) => {
                thread.listen(take);
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

/// What a local cluster is to be.
#[derive(Debug)]
pub(super) struct LocalOptions {
    /// Their number, one or more.
    pub(super) workers: usize,
    pub(super) limits: Limits,
    /// What worker processes have in their environment beside what this process has.
    pub(super) environment: Variables,
    pub(super) namespace: String,
    /// The network of workers that are threads; without it they are processes.
    pub(super) in_process: Option<InProcess>,
    pub(super) stack_bytes: usize,
    /// Whether equal lines of several workers are folded; the environment says so if it is none.
    pub(super) dedup_logs: Option<bool>,
}

/// Starts workers and the driver's own host, and tells everyone about everyone.
pub(super) async fn start(options: LocalOptions) -> Result<(ClusterRef, LocalCluster), ClusterError> {
    let LocalOptions { workers: count, limits, environment, namespace, in_process, stack_bytes, dedup_logs } =
        options;
    if in_process.is_none() {
        contract::arguments()?;
    }
    log::fall_back();
    let io = IoThread::start(stack_bytes)?;
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
    let bootstraps = (0..count).map(|_| WorkerInit {
        secret,
        limits: limits.clone(),
        stack_bytes,
        actors: fresh_identity(),
        tasks: fresh_identity(),
        node: None,
    });
    let bootstraps = bootstraps.collect();
    let mut output = None;
    let booting = match in_process {
        Some(network) => boot_threads(bootstraps, network, io.handle().clone()).boxed(),
        None => {
            let node = NodeId(identity.host.0);
            let output = output.insert(LocalOutput::start(io.handle(), node, dedup_logs)?);
            boot_processes(bootstraps, environment, output.display()).boxed()
        }
    };
    let booted = io.handle().spawn(booting).await;
    let booted = booted.map_err(io::Error::other)??;
    let members = Arc::new(Membership::with_head(
        HeadHandle::Local(Arc::clone(head.control())),
        LocalControlPlane::JOB,
    ));
    host.set_placement(Arc::clone(&members) as _);
    let ready = booted.iter().map(|booted| (booted.handle.pid(), booted.member));
    let numbers = head.register_workers(&host, namespace, ready.collect());
    let mut cluster = LocalCluster {
        members: Arc::clone(&members),
        workers: Vec::new(),
        output,
        stopping: Arc::default(),
        io,
    };
    for (booted, number) in booted.into_iter().zip(numbers) {
        cluster.add(booted, number, &members, &host, &head)?;
    }
    cluster.announce_members(&members, &host).await?;
    Ok((ClusterRef::new(host), cluster))
}

async fn boot_threads(
    bootstraps: Vec<WorkerInit>,
    network: InProcess,
    io: Handle,
) -> Result<Vec<Booted>, ClusterError> {
    try_join_all((0..).zip(bootstraps).map(|(number, bootstrap)| {
        let (transport, listen) = network.worker(number);
        boot_thread(bootstrap, HostEndpoint { transport, listen, io: io.clone() })
    }))
    .await
}

async fn boot_processes(
    bootstraps: Vec<WorkerInit>,
    environment: Variables,
    display: (Display, NodeId),
) -> Result<Vec<Booted>, ClusterError> {
    let mut outputs = Vec::with_capacity(bootstraps.len());
    let booted = async {
        let mut started = Vec::with_capacity(bootstraps.len());
        for bootstrap in &bootstraps {
            let Pipes { read, stdout, stderr } = Pipes::new()?;
            let process =
                WorkerProcess::start(WorkerCommand::this_executable(environment.clone(), stderr.into())?)?;
            outputs.push(WorkerOutput::start(display.clone(), process.pid(), read)?);
            started.push(boot(process, bootstrap, stdout.into()));
        }
        try_join_all(started).await
    };
    match booted.await {
        Ok(booted) => {
            let with_output = booted.into_iter().zip(outputs);
            let booted = with_output.map(|((body, member), output)| Booted {
                handle: body,
                member,
                output: Some(output),
            });
            Ok(booted.collect())
        }
        Err(error) => {
            // The processes are gone by now. What they have printed may say more than the error does.
            join_all(outputs.into_iter().map(WorkerOutput::finish)).await;
            display.0.flush(Instant::now() + OUTPUT_FLUSH_TIMEOUT).await;
            Err(error)
        }
    }
}

async fn boot(
    process: WorkerProcess,
    bootstrap: &WorkerInit,
    stdout: OwnedFd,
) -> Result<(WorkerHandle, WorkerAddress), ClusterError> {
    let report = process.initialise(bootstrap, Some(stdout)).await?;
    let member = member(bootstrap.actors, bootstrap.tasks, report, process.pid())?;
    Ok((WorkerHandle::Process(process), member))
}

async fn boot_thread(bootstrap: WorkerInit, site: HostEndpoint) -> Result<Booted, ClusterError> {
    let (actors, tasks) = (bootstrap.actors, bootstrap.tasks);
    let (thread, report) = WorkerThread::boot(bootstrap, site).await?;
    let member = member(actors, tasks, report, std::process::id())?;
    Ok(Booted { handle: WorkerHandle::Thread(thread), member, output: None })
}

fn member(actors: HostUid, tasks: HostUid, report: Report, pid: u32) -> Result<WorkerAddress, ClusterError> {
    match report {
        Report::Ready { actors_at, tasks_at } => Ok(WorkerAddress { actors, actors_at, tasks, tasks_at }),
        Report::Failed { why } => Err(ClusterError::Worker { pid, cause: why }),
        other => {
            let cause = format!("it reported {other:?} before it was ready");
            Err(ClusterError::Worker { pid, cause })
        }
    }
}

impl LocalCluster {
    /// Takes a worker into the cluster, and watches for its end.
    fn add(
        &mut self,
        Booted { handle: mut body, member, output }: Booted,
        number: WorkerId,
        members: &Arc<Membership>,
        host: &Host,
        head: &LocalControlPlane,
    ) -> Result<(), ClusterError> {
        let runtime = self.io.handle().clone();
        let stopped = Arc::default();
        let watched = body.watch(&stopped)?;
        let (report_end, ended) = watch::channel(None);
        let (pid, stopping) = (body.pid(), Arc::clone(&self.stopping));
        let (members, host) = (Arc::clone(members), host.clone());
        let control = Arc::clone(head.control());
        let _within = runtime.enter();
        let (names, mut take) = (output.as_ref().map(WorkerOutput::names), head.report_handler(number));
        let reports = body.listen(move |report| {
            names.iter().for_each(|take| take(&report));
            take(report);
        });
        if let (Some(all), Some(output)) = (&mut self.output, output) {
            all.add(&runtime, output, ended.clone());
        }
        runtime.spawn(async move {
            let Ok(cause) = watched.await else { return };
            let told = match reports {
                Some(reports) => reports.last().await,
                None => None,
            };
            let cause = told.unwrap_or(cause);
            let change = MembershipUpdate::Left { member, cause: format!("worker {pid}: {cause}") };
            let is_unasked = !stopping.load(Ordering::Relaxed);
            if is_unasked {
                // Before anybody can see that it has ended: what is placed from then on goes elsewhere.
                members.apply(&change, &host);
            }
            report_end.send_replace(Some(cause.clone()));
            control.apply(Event::WorkerEnded { worker: number, cause: cause.clone() });
            if is_unasked {
                log::warn!(pid, cause, "a worker has ended");
                broadcast(&host, &members, change).await;
            }
        });
        self.workers.push(Worker { body, member, ended, stopped });
        Ok(())
    }

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
            let pid = worker.body.pid();
            let change = &change;
            hosts_of(&worker.member).map(|to| async move {
                let told: Result<(), _> = ask_host_shared(host, to, MEMBERSHIP, change.clone()).await;
                told.map_err(|source| ClusterError::Introduce { pid, source })
            })
        }))
        .await?;
        Ok(())
    }

    pub(super) fn members(&self) -> &Membership {
        &self.members
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        let info = |worker: &Worker| WorkerInfo {
            host: worker.member.actors,
            tasks: worker.member.tasks,
            pid: worker.body.pid(),
            address: worker.member.actors_at,
            ended: worker.ended.borrow().clone(),
            stopped: worker.stopped.load(Ordering::Relaxed),
        };
        self.workers.iter().map(info).collect()
    }

    /// Asks all workers to end, and waits a while for it. Those that stay are killed on drop.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        self.stopping.store(true, Ordering::Relaxed);
        join_all(self.workers.iter_mut().map(|worker| worker.body.ask_to_stop())).await;
        let all_ended = join_all(self.workers.iter_mut().map(|worker| async {
            // What it gives holds a lock, and is not kept.
            drop(worker.ended.wait_for(Option::is_some).await);
        }));
        if tokio::time::timeout(WORKER_STOP_TIMEOUT, all_ended).await.is_ok() {
            self.finish_output().await;
            return Ok(());
        }
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

    /// That workers have not ended in time.
    fn busy(&self) -> ClusterError {
        let left: Vec<_> = self.workers.iter().filter(|worker| worker.ended.borrow().is_none()).collect();
        let limit = WORKER_STOP_TIMEOUT;
        match left.first().map(|worker| &worker.body) {
            Some(WorkerHandle::Thread(_)) => {
                let hosts = left.iter().map(|worker| worker.member.actors).collect();
                ClusterError::WorkerBusy { hosts, limit }
            }
            _ => ClusterError::WorkerKilled { pids: left.iter().map(|it| it.body.pid()).collect(), limit },
        }
    }

    /// Ends all processes, whatever they do.
    fn kill(&self) {
        for worker in &self.workers {
            if let WorkerHandle::Process(process) = &worker.body {
                process.kill();
            }
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // All of them, before any is waited for.
        for worker in &mut self.workers {
            if let WorkerHandle::Thread(thread) = &mut worker.body {
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

/// Tells the workers that are left of a change.
async fn broadcast(host: &Host, members: &Membership, change: MembershipUpdate) {
    let change = match SharedArgs::new(&change, host.limits().frame_bytes_max) {
        Ok(change) => change,
        Err(error) => return log::warn!(%error, "the workers cannot be told of a change"),
    };
    let told = members.list().into_iter().flat_map(|member| hosts_of(&member)).map(|to| {
        let change = change.clone();
        async move {
            let told: Result<(), _> = ask_host_shared(host, to, MEMBERSHIP, change).await;
            if let Err(error) = told {
                log::debug!(%to, %error, "a worker could not be told that another has ended");
            }
        }
    });
    join_all(told).await;
}
