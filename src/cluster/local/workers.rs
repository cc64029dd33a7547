//! Workers of a local cluster: their list, the watch for their ends, and their replacement.
//!
//! ```text
//!   a process ends --WorkerEnded--> state --StartWorker--> start a process --> introduce it --WorkerReady--> state
//! ```
//! The state decides whether and when an ended worker is replaced, as it does for the workers of a node. A worker
//! that is a thread is not replaced.
//!
//! Everything here runs on the I/O thread, so what happens between two `await`s is atomic. A new worker gets the
//! list of all before any change that follows, and is named to the others only after it has applied the list.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::control_plane::LocalControlPlane;
use super::output::{LocalOutput, WorkerOutput};
use super::start::{self, ReadyWorker, WorkerSettings};
use super::thread_worker::WorkerThread;
use crate::background;
use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::control_socket::Reports;
use crate::cluster::launch::oom::{AtStart, WorkerEnd};
use crate::cluster::launch::process::WorkerProcess;
use crate::cluster::membership::{Membership, add_peers};
use crate::cluster::model::{WorkerAddress, WorkerId};
use crate::cluster::protocol::worker::{HeadInfo, WorkerMessage};
use crate::cluster::protocol::{MEMBERSHIP, MembershipUpdate};
use crate::cluster::worker_info::WorkerInfo;
use crate::config::ENDED_WORKERS_MAX;
use crate::host::{Host, NotDelivered};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::observe::{Chain, log};
use crate::remote::{SharedArgs, ask_host_shared};
use crate::spec::{End, EndReason};

/// Workers of the cluster, and what their replacement needs.
pub(super) struct Workers {
    list: Mutex<WorkerList>,
    members: Arc<Membership>,
    host: Host,
    head: LocalControlPlane,
    settings: Arc<WorkerSettings>,
    io: Handle,
}

#[derive(Default)]
struct WorkerList {
    /// Running and ended workers, in the order of their start.
    workers: Vec<LocalWorker>,
    /// Output of the workers; `None` if they are threads.
    output: Option<LocalOutput>,
    /// Live workers that get each change of the membership.
    recipients: Vec<WorkerAddress>,
    /// Set once ends are expected, and no worker is added.
    stopping: bool,
}

/// Worker of the cluster, running or ended.
pub(super) struct LocalWorker {
    /// `None` once the process has ended: it holds file descriptors.
    pub(super) handle: Option<WorkerHandle>,
    pub(super) pid: u32,
    pub(super) member: WorkerAddress,
    /// Cause of its end, once it has ended.
    pub(super) ended: watch::Receiver<Option<String>>,
    stopped: Arc<AtomicBool>,
}

/// Process or threads of a worker.
pub(super) enum WorkerHandle {
    Process(WorkerProcess),
    Thread(WorkerThread),
}

impl WorkerHandle {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Process(process) => process.pid(),
            Self::Thread(_) => std::process::id(),
        }
    }

    fn on_exit(&mut self, stopped: &Arc<AtomicBool>) -> io::Result<oneshot::Receiver<End>> {
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

    pub(super) async fn ask_to_stop(&mut self) {
        match self {
            Self::Process(process) => process.ask_to_stop().await,
            Self::Thread(thread) => thread.ask_to_stop(),
        }
    }
}

impl Workers {
    pub(super) fn new(
        members: Arc<Membership>,
        host: Host,
        head: LocalControlPlane,
        settings: Arc<WorkerSettings>,
        output: Option<LocalOutput>,
        io: Handle,
    ) -> Arc<Self> {
        let list = Mutex::new(WorkerList { output, ..WorkerList::default() });
        Arc::new(Self { list, members, host, head, settings, io })
    }

    fn list(&self) -> Locked<'_, WorkerList> {
        self.list.lock()
    }

    pub(super) fn members(&self) -> &Membership {
        &self.members
    }

    pub(super) fn info(&self) -> Vec<WorkerInfo> {
        let info = |worker: &LocalWorker| WorkerInfo {
            host: worker.member.actors,
            tasks: worker.member.tasks,
            pid: worker.pid,
            address: worker.member.actors_at,
            ended: worker.ended.borrow().clone(),
            stopped: worker.stopped.load(Ordering::Relaxed),
        };
        self.list().workers.iter().map(info).collect()
    }

    /// Adds a worker to the list, and watches for its end. Once the cluster stops, it drops the worker instead, and
    /// returns false.
    pub(super) fn add(
        self: &Arc<Self>,
        ready: ReadyWorker,
        worker_id: WorkerId,
    ) -> Result<bool, ClusterError> {
        let ReadyWorker { mut handle, member, output } = ready;
        let at_start = AtStart::now();
        let stopped = Arc::default();
        let watched = handle.on_exit(&stopped)?;
        let (report_end, ended) = watch::channel(None);
        let pid = handle.pid();
        let _within = self.io.enter();
        let (names, mut take) =
            (output.as_ref().map(WorkerOutput::names), self.head.report_handler(worker_id));
        let reports = handle.on_report(move |report| {
            names.iter().for_each(|take| take(&report));
            take(report);
        });
        {
            let mut list = self.list();
            if list.stopping {
                drop(list);
                end_elsewhere(handle);
                return Ok(false);
            }
            if let (Some(all), Some(output)) = (&mut list.output, output) {
                all.add(&self.io, output, ended.clone());
            }
            list.recipients.push(member);
            list.workers.push(LocalWorker { handle: Some(handle), pid, member, ended, stopped });
            list.drop_oldest_ended();
        }
        let this = Arc::clone(self);
        background::spawn_on(&self.io, async move {
            let Ok(exit) = watched.await else { return };
            let reported = match reports {
                Some(reports) => reports.last().await,
                None => None,
            };
            let WorkerEnd { end, killed } = match reported {
                // The worker's own account says more than its exit status.
                Some(end) => WorkerEnd { end, killed: false },
                None => at_start.explain(exit),
            };
            let named = End::new(end.reason, format!("worker {pid}: {end}"));
            let change = MembershipUpdate::Left { member, end: named };
            let is_unexpected = {
                let mut list = this.list();
                list.recipients.retain(|other| *other != member);
                !list.stopping
            };
            if is_unexpected {
                // Before `ended` is set. Code that has seen the end must not be given this worker by a placement.
                this.members.apply(&change, &this.host);
            }
            report_end.send_replace(Some(end.text.clone()));
            // The process was reaped, so its handle is dropped quickly.
            drop(this.take_process(member));
            if is_unexpected {
                log::warn!(pid, cause = end.text, "a worker has ended");
            }
            let ended = ControlEvent::WorkerEnded { worker: worker_id, end, killed };
            this.head.control().apply(ended);
            if is_unexpected {
                this.broadcast(change).await;
            }
        });
        Ok(true)
    }

    /// Sends the first workers the list of all, and applies it here.
    pub(super) async fn introduce_all(&self) -> Result<(), ClusterError> {
        let all = self.list().recipients.clone();
        self.members.apply(&self.snapshot(), &self.host);
        self.send_snapshot(&all).await
    }

    fn snapshot(&self) -> MembershipUpdate {
        let head = HeadInfo {
            head: self.host.identity(),
            at: None,
            job: LocalControlPlane::JOB,
            tracks_all_actors: false,
        };
        MembershipUpdate::Snapshot { members: self.list().recipients.clone(), head }
    }

    async fn send_snapshot(&self, to: &[WorkerAddress]) -> Result<(), ClusterError> {
        let change = self.encoded(&self.snapshot()).map_err(|source| {
            let source = source.into();
            ClusterError::Introduce { pid: std::process::id(), source }
        })?;
        let sent = to.iter().flat_map(hosts_of).map(|to| {
            let change = change.clone();
            async move {
                let sent: Result<(), _> = ask_host_shared(&self.host, to, MEMBERSHIP, change).await;
                sent.map_err(|source| ClusterError::Introduce { pid: self.pid_of(to), source })
            }
        });
        try_join_all(sent).await?;
        Ok(())
    }

    fn encoded(&self, change: &MembershipUpdate) -> Result<SharedArgs, NotDelivered> {
        SharedArgs::new(change, self.host.limits().frame_bytes_max).map_err(NotDelivered::from)
    }

    fn pid_of(&self, host: HostUid) -> u32 {
        let list = self.list();
        let found = list.workers.iter().find(|worker| hosts_of(&worker.member).contains(&host));
        found.map_or(0, |worker| worker.pid)
    }

    /// Sends a change to the live workers.
    async fn broadcast(&self, change: MembershipUpdate) {
        let change = match self.encoded(&change) {
            Ok(change) => change,
            Err(error) => return log::warn!(%error, "a membership change cannot be encoded; workers miss it"),
        };
        let recipients = self.list().recipients.clone();
        let sent = recipients.iter().flat_map(hosts_of).map(|to| {
            let change = change.clone();
            async move {
                let sent: Result<(), _> = ask_host_shared(&self.host, to, MEMBERSHIP, change).await;
                if let Err(error) = sent {
                    log::debug!(%to, %error, "a worker did not receive a membership change");
                }
            }
        });
        join_all(sent).await;
    }

    /// Announces the locations of restarted actors, here and to the workers.
    pub(super) async fn announce_moves(self: Arc<Self>, mut moves: mpsc::Receiver<MembershipUpdate>) {
        while let Some(change) = moves.recv().await {
            self.members.apply(&change, &self.host);
            // In a task of its own: a stopped worker answers late, and must not delay the next one.
            let this = Arc::clone(&self);
            background::spawn(async move { this.broadcast(change).await });
        }
    }

    /// Starts the workers that the state requests, in place of ended ones. Dropping the future ends those that are
    /// starting.
    pub(super) async fn replace(self: Arc<Self>, mut requests: mpsc::Receiver<WorkerId>) {
        let mut starting = FuturesUnordered::new();
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(worker) => starting.push(self.start_requested(worker)),
                    None => return,
                },
                Some(()) = starting.next() => {}
            }
        }
    }

    /// Starts a worker, and reports a failure to the state.
    async fn start_requested(self: &Arc<Self>, worker: WorkerId) {
        let at_start = AtStart::now();
        if self.is_ending() {
            return;
        }
        if let Err(error) = self.start_replacement(worker).await {
            // Want of memory or descriptors is no fault of the program, and may pass.
            let is_passing = matches!(error, ClusterError::Start { .. });
            let failed = End::new(EndReason::Refused, Chain(&error).to_string());
            let WorkerEnd { end, killed } = at_start.explain(failed);
            log::warn!(cause = end.text, "a worker could not be replaced");
            let ended = ControlEvent::WorkerEnded { worker, end, killed: killed || is_passing };
            self.head.control().apply(ended);
            if self.head.control().read(|state| state.is_blocked(LocalControlPlane::JOB)) {
                log::error!("workers that end are no longer replaced: too many failed at their start");
                self.members.expect_replacements(false);
            }
        }
    }

    async fn start_replacement(self: &Arc<Self>, worker: WorkerId) -> Result<(), ClusterError> {
        let display = self.list().output.as_ref().map(LocalOutput::display);
        let Some(display) = display else { return Ok(()) };
        let mut started = start::processes(1, Arc::clone(&self.settings), display).await?;
        let Some(ready) = started.pop() else { return Ok(()) };
        let (member, pid) = (ready.member, ready.handle.pid());
        if !self.add(ready, worker)? {
            return Ok(());
        }
        // From here on the watch reports an end of the worker.
        add_peers(&member, &self.host);
        let sent = self.send_snapshot(&[member]).await;
        // It may have ended meanwhile, and then its end was announced. There is no `await` before the announcement
        // below is on its way.
        if self.is_ending() || !self.list().recipients.contains(&member) {
            return Ok(());
        }
        if let Err(error) = sent {
            log::warn!(pid, error = %Chain(&error), "a new worker does not get the list of workers");
            self.take_process(member).into_iter().for_each(end_elsewhere);
            return Ok(());
        }
        let joined = MembershipUpdate::Joined(member);
        self.members.apply(&joined, &self.host);
        self.head.control().apply(ControlEvent::WorkerReady { worker, member, pid });
        log::info!(pid, "a worker replaces an ended one");
        self.broadcast(joined).await;
        Ok(())
    }

    /// True once no worker is to be started.
    fn is_ending(&self) -> bool {
        self.list().stopping || self.host.is_closing()
    }

    /// Takes all workers and their output for the end of the cluster; none is added from now on.
    pub(super) fn take_all(&self) -> (Vec<LocalWorker>, Option<LocalOutput>) {
        let mut list = self.list();
        list.stopping = true;
        self.members.expect_replacements(false);
        (std::mem::take(&mut list.workers), list.output.take())
    }

    /// Takes the handle of a worker process out of the list.
    fn take_process(&self, member: WorkerAddress) -> Option<WorkerHandle> {
        let mut list = self.list();
        let worker = list.workers.iter_mut().find(|worker| worker.member == member)?;
        worker.handle.take_if(|handle| matches!(handle, WorkerHandle::Process(_)))
    }
}

impl WorkerList {
    /// Drops the oldest ended workers beyond the number that is kept.
    fn drop_oldest_ended(&mut self) {
        let has_ended = |worker: &LocalWorker| worker.handle.is_none();
        while self.workers.iter().filter(|worker| has_ended(worker)).count() > ENDED_WORKERS_MAX {
            let Some(oldest) = self.workers.iter().position(has_ended) else { return };
            self.workers.remove(oldest);
        }
    }
}

/// Ends a worker process on a thread of its own, since a process that is blocked in the kernel ends late.
fn end_elsewhere(handle: WorkerHandle) {
    // If the thread cannot start, the process ends here.
    let _ = thread::Builder::new().name("roadshow-end".to_owned()).spawn(move || drop(handle));
}

fn hosts_of(member: &WorkerAddress) -> [HostUid; 2] {
    [member.actors, member.tasks]
}
