//! Start of workers: processes of this executable, or threads.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::output::{Pipes, WorkerOutput};
use super::thread_worker::{InProcess, WorkerThread};
use super::workers::WorkerHandle;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::process::{WorkerCommand, WorkerProcess};
use crate::cluster::model::{NodeId, WorkerAddress};
use crate::cluster::output::Display;
use crate::cluster::protocol::Variables;
use crate::cluster::protocol::worker::{WorkerInit, WorkerMessage};
use crate::cluster::worker::hosts::HostEndpoint;
use crate::config::{Limits, OUTPUT_FLUSH_TIMEOUT};
use crate::host::fresh_identity;
use crate::id::HostUid;

/// Worker that is ready, with the capture of its output if it is a process.
pub(super) struct ReadyWorker {
    pub(super) handle: WorkerHandle,
    pub(super) member: WorkerAddress,
    pub(super) output: Option<WorkerOutput>,
}

/// Settings of each worker of the cluster.
#[derive(Debug)]
pub(super) struct WorkerSettings {
    pub(super) secret: [u8; 32],
    pub(super) limits: Limits,
    pub(super) stack_bytes: usize,
    /// Variables added to the worker's environment, which otherwise is that of this process.
    pub(super) environment: Variables,
}

impl WorkerSettings {
    /// Initialisation of a worker, with fresh host ids.
    fn init(&self) -> WorkerInit {
        WorkerInit {
            secret: self.secret,
            limits: self.limits.clone(),
            stack_bytes: self.stack_bytes,
            actors: fresh_identity(),
            tasks: fresh_identity(),
            node: None,
        }
    }
}

/// Starts `count` workers as threads.
pub(super) async fn threads(
    count: usize,
    settings: Arc<WorkerSettings>,
    network: InProcess,
    io: Handle,
) -> Result<Vec<ReadyWorker>, ClusterError> {
    try_join_all((0..).take(count).map(|number| {
        let (transport, listen) = network.worker(number);
        thread(settings.init(), HostEndpoint { transport, listen, io: io.clone() })
    }))
    .await
}

async fn thread(init: WorkerInit, endpoint: HostEndpoint) -> Result<ReadyWorker, ClusterError> {
    let (actors, tasks) = (init.actors, init.tasks);
    let (thread, report) = WorkerThread::start(init, endpoint).await?;
    let member = member(actors, tasks, report, std::process::id())?;
    Ok(ReadyWorker { handle: WorkerHandle::Thread(thread), member, output: None })
}

/// Starts `count` workers as processes, at the same time.
pub(super) async fn processes(
    count: usize,
    settings: Arc<WorkerSettings>,
    display: (Display, NodeId),
) -> Result<Vec<ReadyWorker>, ClusterError> {
    let mut outputs = Vec::with_capacity(count);
    let ready_workers = async {
        let mut started = Vec::with_capacity(count);
        for _ in 0..count {
            let Pipes { read, stdout, stderr } = Pipes::new()?;
            let command = WorkerCommand::this_executable(settings.environment.clone(), stderr.into())?;
            let process = WorkerProcess::start(command)?;
            outputs.push(WorkerOutput::start(display.clone(), process.pid(), read)?);
            started.push(initialise(process, settings.init(), stdout.into()));
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
    init: WorkerInit,
    stdout: OwnedFd,
) -> Result<(WorkerHandle, WorkerAddress), ClusterError> {
    let report = process.initialise(&init, Some(stdout)).await?;
    let member = member(init.actors, init.tasks, report, process.pid())?;
    Ok((WorkerHandle::Process(process), member))
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
