//! A worker within this process, for tests: the same hosts, on threads instead of in a process.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{self, Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::cluster::error::ClusterError;
use crate::cluster::protocol::worker::{ActorEvent, Report, WorkerInit};
use crate::cluster::worker::LOOPBACK;
use crate::cluster::worker::hosts;
use crate::cluster::worker::hosts::{Ended, Executors, HostEndpoint, WorkerEndpoints};
use crate::cluster::worker::user_thread::{UserThread, first_end};
use crate::config::{WORKER_START_TIMEOUT, WORKER_STOP_TIMEOUT};
use crate::host::LifecycleObserver;
use crate::lock::Mutex;
use crate::observe::Chain;
use crate::spec::{ActorKey, ActorLocation};
use crate::transport::{Memory, Tcp, Transport};

/// What connects the hosts of a cluster whose workers are threads of this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InProcess {
    /// A network in memory. The driver is at 127.0.0.1, the workers are at 127.0.0.2 and so on, in
    /// the order of `Cluster::workers`, so that faults can be between any two of them.
    Memory(Memory),
    /// TCP over loopback.
    Tcp,
}

impl InProcess {
    /// How the driver reaches the workers.
    pub(crate) fn driver(&self) -> Arc<dyn Transport> {
        match self {
            Self::Memory(network) => Arc::new(network.at(Ipv4Addr::LOCALHOST)),
            Self::Tcp => Arc::new(Tcp),
        }
    }

    /// How the worker of that number reaches others, and where it listens.
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

/// The threads of one worker. Dropping it ends them, and waits a while for that.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    stop: Option<oneshot::Sender<()>>,
    asked_at: Option<Instant>,
    ended: Option<oneshot::Receiver<String>>,
    /// Disconnected when the threads are about to be over. Under a lock, so that a cluster is `Sync`.
    alive: sync::Mutex<Receiver<()>>,
    lives: Arc<ChannelObserver>,
    /// Once the worker is ready: one that is not may need the thread that would wait for it.
    threads: Vec<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts a worker, and waits until it is what `bootstrap` says.
    pub(crate) async fn boot(
        bootstrap: WorkerInit,
        site: HostEndpoint,
    ) -> Result<(Self, Report), ClusterError> {
        let (report, reported) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (report_end, ended) = oneshot::channel();
        let (living, alive) = sync_channel(1);
        let lives = Arc::<ChannelObserver>::default();
        let stack_bytes = bootstrap.stack_bytes;
        let (mut actors, actors_end) =
            UserThread::start("roadshow-actors", stack_bytes, None, living.clone())?;
        let (mut tasks, tasks_end) = UserThread::start("roadshow-tasks", stack_bytes, Some(&actors), living)?;
        let executors = Executors { actors: actors.executor(), tasks: tasks.executor() };
        let threads: Vec<_> = [actors.take_handle(), tasks.take_handle()].into_iter().flatten().collect();
        let (told, io) = (Arc::clone(&lives), site.io.clone());
        io.spawn(async move {
            let sites = WorkerEndpoints { actors: site.clone(), tasks: site };
            // Where nobody waits for the report, the sender of `stop` is gone as well.
            let report = |ready| {
                let _ = report.send(ready);
                Ok(())
            };
            let over = first_end(actors_end, tasks_end);
            let served = hosts::serve(bootstrap, sites, executors, told, report, stopped, over).await;
            let is_asked = matches!(served, Ok(Ended::Asked));
            let cause = match served {
                Ok(Ended::Asked) => "the thread ended".to_owned(),
                Ok(Ended::Because(cause)) => cause,
                Err(error) => Chain(&error).to_string(),
            };
            if is_asked {
                tokio::join!(actors.ends(), tasks.ends());
            }
            // Nobody asks any more when the cluster was dropped.
            let _ = report_end.send(cause);
        });
        let (stop, ended) = (Some(stop), Some(ended));
        let mut worker =
            Self { stop, asked_at: None, ended, alive: sync::Mutex::new(alive), lives, threads: Vec::new() };
        let pid = std::process::id();
        match tokio::time::timeout(WORKER_START_TIMEOUT, reported).await {
            Ok(Ok(report)) => {
                worker.threads = threads;
                Ok((worker, report))
            }
            Ok(Err(_)) => {
                let ended = worker.watch();
                Err(ClusterError::Worker { pid, cause: ended.await.unwrap_or_default() })
            }
            Err(_) => Err(ClusterError::WorkerStartTimeout { pid, limit: WORKER_START_TIMEOUT }),
        }
    }

    /// Tells how the worker ended, once it has. To be called once.
    pub(crate) fn watch(&mut self) -> oneshot::Receiver<String> {
        self.ended.take().unwrap_or_else(|| oneshot::channel().1)
    }

    /// Hands on what the worker reports.
    pub(crate) fn listen(&self, take: impl FnMut(Report) + Send + 'static) {
        self.lives.listen(Box::new(take));
    }

    /// Asks the worker to end in order.
    pub(crate) fn ask_to_stop(&mut self) {
        self.asked_at.get_or_insert_with(Instant::now);
        // A worker that has ended already cannot be told.
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Ends the worker as soon as no handler and no task of it computes.
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
        // A thread that computes cannot be ended; it goes when it is done.
        let alive = self.alive.get_mut().unwrap_or_else(PoisonError::into_inner);
        let over = alive.recv_timeout(WORKER_STOP_TIMEOUT.saturating_sub(waited));
        if over == Err(RecvTimeoutError::Disconnected) {
            for thread in self.threads.drain(..) {
                // Its panics are caught on it.
                let _ = thread.join();
            }
        }
    }
}

/// Tells of the lives of actors within the process.
#[derive(Default)]
struct ChannelObserver(Mutex<Option<ReportHandler>>);

type ReportHandler = Box<dyn FnMut(Report) + Send>;

impl ChannelObserver {
    fn listen(&self, take: ReportHandler) {
        *self.0.lock() = Some(take);
    }

    fn tell(&self, life: ActorEvent) {
        // Nothing lives before the worker is in the cluster, which is when somebody listens.
        if let Some(take) = &mut *self.0.lock() {
            take(Report::ActorEvents(vec![life]));
        }
    }
}

impl LifecycleObserver for ChannelObserver {
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation) {
        self.tell(ActorEvent::Started { actor, class: class.to_owned(), at });
    }

    fn actor_stopped(&self, actor: ActorKey, cause: &str) {
        self.tell(ActorEvent::Stopped { actor, cause: cause.to_owned() });
    }
}

impl fmt::Debug for ChannelObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadLives")
    }
}
