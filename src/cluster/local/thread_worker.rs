//! Worker within this process, for tests: the same hosts as in a worker process, on threads.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{self, Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::protocol::worker::{ActorEvent, WorkerInit, WorkerMessage};
use crate::cluster::worker::LOOPBACK;
use crate::cluster::worker::hosts;
use crate::cluster::worker::hosts::{Ended, Executors, HostEndpoint, Observers, WorkerEndpoints};
use crate::cluster::worker::user_thread::{UserThread, first_end};
use crate::config::{WORKER_START_TIMEOUT, WORKER_STOP_TIMEOUT};
use crate::host::{ActorEnd, Leases, LifecycleObserver, machine_time};
use crate::lock::Mutex;
use crate::observe::Chain;
use crate::spec::{ActorKey, ActorLocation, End, EndReason};
use crate::transport::{Memory, Tcp, Transport};

/// Network between the hosts of a cluster whose workers are threads of this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InProcess {
    /// Network in memory. The driver has the address 127.0.0.1, the workers have 127.0.0.2 and so on, in the order
    /// of `Cluster::workers`. A fault can be injected between any two of them.
    Memory(Memory),
    /// TCP over loopback.
    Tcp,
}

impl InProcess {
    /// Transport of the driver.
    pub(crate) fn driver(&self) -> Arc<dyn Transport> {
        match self {
            Self::Memory(network) => Arc::new(network.at(Ipv4Addr::LOCALHOST)),
            Self::Tcp => Arc::new(Tcp),
        }
    }

    /// Transport and listening address of the worker with this number.
    pub(crate) fn worker(&self, number: u32) -> (Arc<dyn Transport>, SocketAddr) {
        match self {
            Self::Memory(network) => {
                let ip = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + number));
                (Arc::new(network.at(ip)), SocketAddr::new(ip, 0))
            }
            Self::Tcp => (Arc::new(Tcp), LOOPBACK),
        }
    }
}

/// Threads of one worker. Dropping it ends them, and waits for that up to the stop timeout.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    stop: Option<oneshot::Sender<()>>,
    asked_at: Option<Instant>,
    ended: Option<oneshot::Receiver<End>>,
    /// Disconnected just before the threads end. The lock makes a cluster `Sync`.
    alive: sync::Mutex<Receiver<()>>,
    observer: Arc<ChannelObserver>,
    /// Threads to join on drop. Empty until the worker is ready: a worker that cannot start may be waiting for the
    /// very thread that would join it.
    threads: Vec<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts a worker, and waits until it is ready.
    pub(crate) async fn start(
        init: WorkerInit,
        endpoint: HostEndpoint,
    ) -> Result<(Self, WorkerMessage), ClusterError> {
        let (report, reported) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (report_end, ended) = oneshot::channel();
        let (alive_sender, alive) = sync_channel(1);
        let observer = Arc::<ChannelObserver>::default();
        let stack_bytes = init.stack_bytes;
        let (mut actors, actors_end) =
            UserThread::start("roadshow-actors", stack_bytes, None, alive_sender.clone())?;
        let (mut tasks, tasks_end) =
            UserThread::start("roadshow-tasks", stack_bytes, Some(&actors), alive_sender)?;
        // They are endless, so nothing overruns them.
        let leases = Arc::new(Leases::new(machine_time, endpoint.io.clone(), Arc::new(|| ())));
        let executors = Executors { actors: actors.executor(), tasks: tasks.executor(), leases };
        let threads: Vec<_> = [actors.take_handle(), tasks.take_handle()].into_iter().flatten().collect();
        let (reporter, io) = (Arc::clone(&observer), endpoint.io.clone());
        background::spawn_on(&io, async move {
            let endpoints = WorkerEndpoints { head: None, actors: endpoint.clone(), tasks: endpoint };
            // If the receiver is gone, `stop` was dropped with it, and the worker ends.
            let report = |ready| {
                let _ = report.send(ready);
                Ok(())
            };
            let thread_end = first_end(actors_end, tasks_end);
            let observers = Observers { lifecycle: reporter, statistics: None };
            let served =
                hosts::serve(init, endpoints, executors, observers, report, stopped, thread_end).await;
            let is_asked = matches!(served, Ok(Ended::Asked));
            let cause = match served {
                Ok(Ended::Asked) => "the thread ended".to_owned(),
                Ok(Ended::Because(cause)) => cause,
                Err(error) => Chain(&error).to_string(),
            };
            if is_asked {
                tokio::join!(actors.ends(), tasks.ends());
            }
            // The receiver is gone if the cluster was dropped.
            let _ = report_end.send(End::new(EndReason::Exited(1), cause));
        });
        let (stop, ended) = (Some(stop), Some(ended));
        let mut worker = Self {
            stop,
            asked_at: None,
            ended,
            alive: sync::Mutex::new(alive),
            observer,
            threads: Vec::new(),
        };
        let pid = std::process::id();
        match tokio::time::timeout(WORKER_START_TIMEOUT, reported).await {
            Ok(Ok(report)) => {
                worker.threads = threads;
                Ok((worker, report))
            }
            Ok(Err(_)) => {
                let ended = worker.on_exit();
                Err(ClusterError::Worker {
                    pid,
                    cause: ended.await.map_or_else(|_| String::new(), |end| end.text),
                })
            }
            Err(_) => Err(ClusterError::WorkerStartTimeout { pid, limit: WORKER_START_TIMEOUT }),
        }
    }

    /// Receiver of the cause of the worker's end. May be called once.
    pub(crate) fn on_exit(&mut self) -> oneshot::Receiver<End> {
        self.ended.take().unwrap_or_else(|| oneshot::channel().1)
    }

    /// Passes the worker's reports to `take`.
    pub(crate) fn on_report(&self, take: impl FnMut(WorkerMessage) + Send + 'static) {
        self.observer.set_handler(Box::new(take));
    }

    /// Asks the worker to end gracefully.
    pub(crate) fn ask_to_stop(&mut self) {
        self.asked_at.get_or_insert_with(Instant::now);
        // The send fails if the worker has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Ends the worker once no handler and no task of it computes.
    pub(crate) fn end(&mut self) {
        self.asked_at.get_or_insert_with(Instant::now);
        self.stop = None;
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.end();
        let waited = self.asked_at.map_or(Duration::ZERO, |asked_at| asked_at.elapsed());
        if self.threads.is_empty() {
            return;
        }
        // A thread that computes cannot be killed. It is left behind, and ends after its handler or task.
        let alive = self.alive.get_mut().unwrap_or_else(PoisonError::into_inner);
        let disconnected = alive.recv_timeout(WORKER_STOP_TIMEOUT.saturating_sub(waited));
        if disconnected == Err(RecvTimeoutError::Disconnected) {
            for thread in self.threads.drain(..) {
                // Panics were caught on the thread.
                let _ = thread.join();
            }
        }
    }
}

/// Lifecycle observer that calls a handler within the process.
#[derive(Default)]
struct ChannelObserver(Mutex<Option<ReportHandler>>);

/// Handler of a worker's reports.
type ReportHandler = Box<dyn FnMut(WorkerMessage) + Send>;

impl ChannelObserver {
    fn set_handler(&self, take: ReportHandler) {
        *self.0.lock() = Some(take);
    }

    fn report(&self, event: ActorEvent) {
        // No actor starts before the worker is in the cluster, and by then the handler is set.
        if let Some(take) = &mut *self.0.lock() {
            take(WorkerMessage::ActorEvents(vec![event]));
        }
    }
}

impl LifecycleObserver for ChannelObserver {
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation) {
        self.report(ActorEvent::Started { actor, class: class.to_owned(), at });
    }

    fn actor_stopped(&self, actor: ActorKey, end: ActorEnd) {
        let ActorEnd { incarnation, end, handled } = end;
        self.report(ActorEvent::Stopped { actor, incarnation, end, handled });
    }
}

impl fmt::Debug for ChannelObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelObserver")
    }
}
