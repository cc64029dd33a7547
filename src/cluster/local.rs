//! A cluster on this machine: processes that the driver starts, watches and ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;

use super::bootstrap::{Bootstrap, Report};
use super::io_thread::IoThread;
use super::members::{Change, MEMBERSHIP, Member, Members};
use super::process::WorkerProcess;
use super::{ClusterError, WorkerInfo, worker};
use crate::config::{Limits, WORKER_STOP_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, fresh_identity};
use crate::id::Identity;
use crate::observe;
use crate::remote::{ClusterRef, ask_host, host_calls};
use crate::session::Secret;
use crate::transport::Tcp;

/// Where workers of a local cluster listen: on loopback, any free port.
pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The processes, and the thread that watches them. Dropping it kills them.
pub(super) struct LocalCluster {
    workers: Vec<Worker>,
    stopping: Arc<AtomicBool>,
    _io: IoThread,
}

struct Worker {
    process: WorkerProcess,
    member: Member,
    ended: watch::Receiver<bool>,
}

/// Starts workers and the driver's own host, and tells everyone about everyone.
pub(super) async fn start(count: usize, limits: Limits) -> Result<(ClusterRef, LocalCluster), ClusterError> {
    worker::arguments()?;
    observe::log::init();
    let io = IoThread::start()?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let host = Host::start(HostConfig {
        identity: fresh_identity(),
        secret: Secret::from_bytes(secret),
        limits: limits.clone(),
        transport: Arc::new(Tcp),
        listen: None,
        io: io.handle().clone(),
        executor: Executor::here_or(io.handle()),
        calls: Box::new(host_calls),
    })
    .await?;
    let booted = io.handle().spawn(boot_all(count, secret, limits)).await;
    let booted = booted.map_err(io::Error::other)??;
    let members = Arc::new(Members::default());
    host.set_placement(Arc::clone(&members) as _);
    let mut cluster = LocalCluster { workers: Vec::new(), stopping: Arc::default(), _io: io };
    for (process, member) in booted {
        cluster.add(process, member, &members, &host)?;
    }
    cluster.introduce_all(&members, &host).await?;
    Ok((ClusterRef::new(host), cluster))
}

async fn boot_all(
    count: usize,
    secret: [u8; 32],
    limits: Limits,
) -> Result<Vec<(WorkerProcess, Member)>, ClusterError> {
    let started: Result<Vec<_>, _> = (0..count).map(|_| WorkerProcess::start()).collect();
    try_join_all(started?.into_iter().map(|process| boot(process, secret, limits.clone()))).await
}

async fn boot(
    mut process: WorkerProcess,
    secret: [u8; 32],
    limits: Limits,
) -> Result<(WorkerProcess, Member), ClusterError> {
    let (actors, tasks) = (fresh_identity(), fresh_identity());
    match process.boot(&Bootstrap { secret, limits, actors, tasks }).await? {
        Report::Ready { actors_at, tasks_at } => Ok((process, Member { actors, actors_at, tasks, tasks_at })),
        Report::Failed { why } => Err(ClusterError::Worker { pid: process.pid(), cause: why }),
    }
}

impl LocalCluster {
    /// Takes a worker into the cluster, and watches for its end.
    fn add(
        &mut self,
        process: WorkerProcess,
        member: Member,
        members: &Arc<Members>,
        host: &Host,
    ) -> Result<(), ClusterError> {
        let runtime = self._io.handle();
        let watched = process.watch()?;
        let (tell_end, ended) = watch::channel(false);
        let (pid, stopping) = (process.pid(), Arc::clone(&self.stopping));
        let (members, host) = (Arc::clone(members), host.clone());
        runtime.spawn(async move {
            let Ok(cause) = watched.await else { return };
            tell_end.send_replace(true);
            if !stopping.load(Ordering::Relaxed) {
                tracing::warn!(pid, cause, "a worker has ended");
                let cause = format!("worker {pid}: {cause}");
                spread(&host, &members, Change::Ended { member, cause }).await;
            }
        });
        self.workers.push(Worker { process, member, ended });
        Ok(())
    }

    async fn introduce_all(&self, members: &Members, host: &Host) -> Result<(), ClusterError> {
        let all: Vec<_> = self.workers.iter().map(|worker| worker.member).collect();
        let change = Change::Are(all);
        members.apply(&change, host);
        try_join_all(self.workers.iter().flat_map(|worker| {
            let pid = worker.process.pid();
            let change = &change;
            hosts_of(&worker.member).map(|to| async move {
                let told: Result<(), _> = ask_host(host, to, MEMBERSHIP, change.clone(), None).await;
                told.map_err(|source| ClusterError::Introduce { pid, source })
            })
        }))
        .await?;
        Ok(())
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        let info = |worker: &Worker| WorkerInfo {
            host: worker.member.actors,
            pid: worker.process.pid(),
            address: worker.member.actors_at,
        };
        self.workers.iter().map(info).collect()
    }

    /// Asks all workers to end, and waits a while for it. Those that stay are killed on drop.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        self.stopping.store(true, Ordering::Relaxed);
        join_all(self.workers.iter_mut().map(|worker| worker.process.ask_to_stop())).await;
        let all_ended = join_all(self.workers.iter_mut().map(|worker| worker.ended.wait_for(|ended| *ended)));
        if tokio::time::timeout(WORKER_STOP_TIMEOUT, all_ended).await.is_ok() {
            return Ok(());
        }
        let left = self.workers.iter().filter(|worker| !*worker.ended.borrow());
        Err(ClusterError::WorkerKilled {
            pids: left.map(|worker| worker.process.pid()).collect(),
            limit: WORKER_STOP_TIMEOUT,
        })
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn hosts_of(member: &Member) -> [Identity; 2] {
    [member.actors, member.tasks]
}

/// Takes up a change here, and tells the workers that are left.
async fn spread(host: &Host, members: &Members, change: Change) {
    members.apply(&change, host);
    let told = members.list().into_iter().flat_map(|member| hosts_of(&member)).map(|to| {
        let change = change.clone();
        async move {
            let told: Result<(), _> = ask_host(host, to, MEMBERSHIP, change, None).await;
            if let Err(error) = told {
                tracing::debug!(%to, %error, "a worker could not be told that another has ended");
            }
        }
    });
    join_all(told).await;
}
