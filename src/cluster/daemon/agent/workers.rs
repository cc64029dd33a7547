//! Worker processes of a node: started on command of the head, supervised, and stopped.
//!
//! ```text
//!            start        set_running        ready
//!  (absent) ──────▶ reserved ──────▶ starting ──────▶ ready ──┐
//!     ▲                │                │                     │ exit
//!     └────────────────┴────────────────┴── remove, ◀─────────┘
//!                                           WorkerEnded
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::Agent;
use super::accounts::Account;
use super::output;
use crate::cluster::launch::control_socket::ControlSocket;
use crate::cluster::launch::control_socket::Reports;
use crate::cluster::launch::oom::{AtStart, WorkerEnd};
use crate::cluster::launch::process::{WorkerCommand, WorkerProcess};
use crate::cluster::model::WorkerReport;
use crate::cluster::model::{ActorCount, ActorKey, JobId, TaskCount, WorkerAddress, WorkerId};
use crate::cluster::output::Label;
use crate::cluster::protocol;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::Variables;
use crate::cluster::protocol::worker::{ActorEvent, HeadInfo, NodeContext, WorkerInit, WorkerMessage};
use crate::cluster::protocol::{JobSpec, NodeEvent};
use crate::cluster::worker_actors::WorkerActors;
use crate::config::WORKER_STOP_TIMEOUT;
use crate::host::fresh_identity;
use crate::id::{HostId, HostUid};
use crate::observe::Chain;
use crate::remote::call_host;
use crate::spec::{End, EndReason, LeaseGrant};

/// Workers that run, or are being started.
#[derive(Debug, Default)]
pub(super) struct NodeWorkers {
    all: Mutex<FxHashMap<WorkerId, NodeWorker>>,
    routes: Mutex<FxHashMap<HostId, Arc<ControlSocket>>>,
}

#[derive(Debug)]
struct NodeWorker {
    job: JobId,
    /// Detached actor that the worker was started for.
    detached: Option<ActorKey>,
    /// `None` until the process exists.
    running: Option<Running>,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    process: Arc<WorkerProcess>,
    hosts: [HostUid; 2],
    /// `None` until the worker is ready.
    member: Option<WorkerAddress>,
    /// True while a signal has stopped the process.
    suspended: bool,
    actors: WorkerActors,
    /// Task counts by function name.
    tasks: BTreeMap<String, TaskCount>,
    label: Arc<Label>,
    /// Set once it may have exclusive actors.
    needs_lease: bool,
}

impl NodeWorkers {
    /// Starts a worker in the background. Its end, or the failure to start it, is reported to the head.
    pub(super) fn start(&self, agent: &Arc<Agent>, worker: WorkerId, job: JobId, detached: Option<ActorKey>) {
        let stopping = self.reserve(worker, job, detached);
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            let at_start = AtStart::now();
            let WorkerEnd { end, killed } = match launch(&agent, worker, job, &stopping).await {
                Ok(()) => return,
                Err(why) => at_start.explain(End::new(EndReason::Refused, why)),
            };
            tracing::warn!(%worker, %job, cause = end.text, "a worker was not started");
            agent.workers.remove(&agent, worker);
            agent.orphans.worker_ended(&agent, job);
            agent.record(NodeEvent::WorkerEnded { worker, end, killed });
        });
    }

    /// Registers a worker before its process exists, and returns its stop flag.
    pub(super) fn reserve(
        &self,
        worker: WorkerId,
        job: JobId,
        detached: Option<ActorKey>,
    ) -> Arc<AtomicBool> {
        let stopping = Arc::<AtomicBool>::default();
        let entry = NodeWorker { job, detached, running: None, stopping: Arc::clone(&stopping) };
        self.lock().insert(worker, entry);
        stopping
    }

    /// Stops a worker gracefully, and kills it after a timeout.
    pub(super) fn stop(&self, worker: WorkerId) {
        let all = self.lock();
        let Some(entry) = all.get(&worker) else { return };
        entry.stopping.store(true, Ordering::Relaxed);
        if let Some(running) = &entry.running {
            let process = Arc::clone(&running.process);
            tokio::spawn(async move {
                // A suspended process does not read the request, so the write may block.
                let asking = tokio::time::timeout(WORKER_STOP_TIMEOUT, process.ask_to_stop());
                drop(tokio::join!(asking, tokio::time::sleep(WORKER_STOP_TIMEOUT)));
                // Killing a process that has ended does nothing. `kill` reads the process table, hence the thread.
                drop(tokio::task::spawn_blocking(move || process.kill()).await);
            });
        }
    }

    /// Stops all workers, and waits until they have ended.
    pub(super) async fn stop_all(&self) {
        let ids: Vec<_> = self.lock().keys().copied().collect();
        ids.into_iter().for_each(|worker| self.stop(worker));
        // The kill comes after one timeout; the rest is for the processes to disappear.
        let limit = WORKER_STOP_TIMEOUT + WORKER_STOP_TIMEOUT / 4;
        let ended = async {
            while !self.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("some workers have not ended; the agent ends without them");
        }
    }

    /// Describes all workers for a join report.
    pub(super) fn report(&self) -> Vec<WorkerReport> {
        let all = self.lock();
        let report = |(&worker, entry): (&WorkerId, &NodeWorker)| {
            let running = entry.running.as_ref();
            WorkerReport {
                worker,
                job: entry.job,
                detached: entry.detached,
                member: running.and_then(|running| running.member),
                pid: running.map_or(0, |running| running.process.pid()),
                suspended: running.is_some_and(|running| running.suspended),
                actors: running.map(|running| running.actors.report()).unwrap_or_default(),
                tasks: running.into_iter().flat_map(|running| running.tasks.values().cloned()).collect(),
            }
        };
        let mut reports: Vec<_> = all.iter().map(report).collect();
        reports.sort_unstable_by_key(|report| report.worker);
        reports
    }

    /// Notifies all workers of the head's current host and address.
    pub(super) fn announce_head(&self, agent: &Agent, head: HostUid) {
        let at = agent.descriptor.address;
        for entry in self.lock().values() {
            let Some(hosts) = entry.running.as_ref().map(|running| running.hosts) else { continue };
            let info = HeadInfo { head, at: Some(agent.head_at()), job: entry.job, tracks_all_actors: true };
            for to in hosts {
                let host = agent.host.clone();
                // The agent dials its workers through its own acceptor, like every other host.
                host.add_peer(to, at);
                tokio::spawn(async move {
                    // Without a deadline: a worker whose thread is busy reads the update when it is done.
                    let notified: Result<(), _> =
                        call_host(&host, to, MEMBERSHIP, MembershipUpdate::Head(info), None).await;
                    if let Err(error) = notified {
                        tracing::debug!(%to, %error, "cannot notify a worker of the head");
                    }
                });
            }
        }
    }

    /// Process ids of the running workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        let all = self.lock();
        all.values().filter_map(|entry| Some(entry.running.as_ref()?.process.pid())).collect()
    }

    /// Returns true until a worker has ended.
    pub(super) fn contains(&self, worker: WorkerId) -> bool {
        self.lock().contains_key(&worker)
    }

    /// Jobs with workers that run, or are being started.
    pub(super) fn jobs(&self) -> BTreeSet<JobId> {
        self.lock().values().map(|entry| entry.job).collect()
    }

    /// Returns true if workers of a job run, or are being started.
    pub(super) fn has_workers_of(&self, job: JobId) -> bool {
        self.lock().values().any(|entry| entry.job == job)
    }

    /// Control socket of the worker with this host.
    pub(super) fn route_to(&self, host: HostId) -> Option<Arc<ControlSocket>> {
        self.routes().get(&host).cloned()
    }

    /// Passes the node's lease on to a worker from now on.
    pub(super) fn need_lease(&self, worker: WorkerId) {
        if let Some(running) = self.lock().get_mut(&worker).and_then(|entry| entry.running.as_mut()) {
            running.needs_lease = true;
        }
    }

    /// Passes the node's lease on to the workers that need it.
    pub(super) fn pass_on(&self, grant: LeaseGrant) {
        let all = self.lock();
        let running = all.values().filter_map(|entry| entry.running.as_ref());
        for running in running.filter(|running| running.needs_lease) {
            let socket = Arc::clone(running.process.control_socket());
            // In a task of its own: a worker that is stopped reads nothing, and its write may block.
            tokio::spawn(async move {
                if let Err(error) = socket.send_lease(grant).await {
                    tracing::debug!(%error, "a worker does not get the lease of its node");
                }
            });
        }
    }

    /// Hosts of the running workers, with what the renewal of each certificate needs.
    pub(super) fn certificate_holders(&self) -> Vec<(JobId, [HostUid; 2], Arc<ControlSocket>)> {
        let all = self.lock();
        let running = all.values().filter_map(|entry| Some((entry.job, entry.running.as_ref()?)));
        running
            .map(|(job, running)| (job, running.hosts, Arc::clone(running.process.control_socket())))
            .collect()
    }

    /// Adds a worker's host to the peers of the agent; false if the worker does not run.
    ///
    /// A peer that is added after the worker has ended would be dialled for ever.
    pub(super) fn add_peer(&self, agent: &Agent, worker: WorkerId, host: HostUid) -> bool {
        let all = self.lock();
        let running = all.get(&worker).and_then(|entry| entry.running.as_ref());
        if !running.is_some_and(|running| running.hosts.contains(&host)) {
            return false;
        }
        // The worker is dialled through the node's own acceptor.
        agent.host.add_peer(host, agent.descriptor.address);
        true
    }

    /// Registers the process of a worker.
    fn set_running(
        &self,
        worker: WorkerId,
        process: &Arc<WorkerProcess>,
        hosts: [HostUid; 2],
        label: &Arc<Label>,
    ) {
        for host in hosts {
            self.routes().insert(host.host, Arc::clone(process.control_socket()));
        }
        if let Some(entry) = self.lock().get_mut(&worker) {
            let (process, label) = (Arc::clone(process), Arc::clone(label));
            entry.running = Some(Running {
                process,
                hosts,
                member: None,
                suspended: false,
                actors: WorkerActors::default(),
                tasks: BTreeMap::new(),
                label,
                needs_lease: false,
            });
        }
    }

    fn ready(&self, worker: WorkerId, member: WorkerAddress) {
        if let Some(running) = self.lock().get_mut(&worker).and_then(|entry| entry.running.as_mut()) {
            running.member = Some(member);
        }
    }

    fn on_actor_event(&self, worker: WorkerId, event: &ActorEvent) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        if let ActorEvent::Started { class, .. } = event {
            running.label.add(class);
        }
        running.actors.on_event(event);
    }

    /// Records that a signal has stopped a worker's process, or that it continues, and reports it.
    fn set_suspended(&self, agent: &Agent, worker: WorkerId, suspended: bool) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        running.suspended = suspended;
        drop(all);
        agent.record(NodeEvent::WorkerSuspended { worker, suspended });
    }

    /// Drops the counts of actors that do not live in the worker: those of ended ones would stay for ever.
    fn retain_alive(&self, worker: WorkerId, counts: &mut Vec<ActorCount>) {
        let all = self.lock();
        let running = all.get(&worker).and_then(|entry| entry.running.as_ref());
        counts.retain(|count| running.is_some_and(|running| running.actors.contains(count.actor)));
    }

    fn on_task_counts(&self, worker: WorkerId, counts: &[TaskCount]) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        running.tasks.extend(counts.iter().map(|count| (count.name.clone(), count.clone())));
    }

    fn remove(&self, agent: &Agent, worker: WorkerId) {
        let Some(entry) = self.lock().remove(&worker) else { return };
        // After the removal, so that this worker no longer counts, and without the lock of the workers: the call takes it
        // behind the lock of the jobs.
        agent.jobs.release_if_idle(entry.job, self);
        for host in entry.running.into_iter().flat_map(|running| running.hosts) {
            self.routes().remove(&host.host);
            // Open calls to the worker fail immediately as `HostDown`, instead of after failed attempts to connect.
            agent.host.mark_peer_down(host, "the worker has ended");
            agent.host.forget(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<WorkerId, NodeWorker>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, FxHashMap<HostId, Arc<ControlSocket>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a worker, and returns once it is ready. A detached task then waits for its end.
///
/// On an error the process, if any, is killed when it is dropped; the caller removes the reservation.
async fn launch(
    agent: &Arc<Agent>,
    worker: WorkerId,
    job: JobId,
    stopping: &Arc<AtomicBool>,
) -> Result<(), String> {
    // 1. All that can fail without a process: the job's executable and user, and the certificate, which is a call to
    //    the head.
    let (spec, executable, account) =
        agent.jobs.launch(job).ok_or("this node does not have the job's executable")?;
    let account = account.as_deref();
    let hosts = [fresh_identity(), fresh_identity()];
    let credentials = agent.sign(job, hosts).await?;
    let head = agent.head().ok_or("the head is not known")?;

    // 2. The process. It is registered before the flag is read: `stop` sets the flag first and then looks for the
    //    process, so one of the two sees the other.
    let (process, output) = spawn(agent, job, &spec, &executable, account)?;
    let label = Arc::<Label>::default();
    let capture = output::capture(agent, &spec, worker, process.pid(), &label, output);
    agent.workers.set_running(worker, &process, hosts, &label);
    if stopping.load(Ordering::Relaxed) {
        return Err("it was stopped while it started".to_owned());
    }

    // 3. Supervision, before the initialisation: a process that dies or is suspended in the middle of it is noticed.
    let at_start = AtStart::now();
    let ended = watch(agent, worker, &process)?;

    // 4. Initialisation. The worker is reported as ready only with its hosts up, since the head places actors there
    //    from then on. A stop request in the meantime may not have been read, so it is repeated.
    let address = agent.descriptor.address;
    let head = HeadInfo { head, at: Some(agent.head_at()), job, tracks_all_actors: true };
    initialise(agent, &process, &spec, hosts, NodeContext { credentials, address, head }).await?;
    let member = WorkerAddress { actors: hosts[0], actors_at: address, tasks: hosts[1], tasks_at: address };
    agent.workers.ready(worker, member);
    agent.record(NodeEvent::WorkerReady { worker, member, pid: process.pid() });
    if stopping.load(Ordering::Relaxed) {
        agent.workers.stop(worker);
    }

    // 5. The reports, after the event of the ready worker: the head must know a worker before its actors.
    let reports = listen(agent, worker, &process);
    let (agent, stopping) = (Arc::clone(agent), Arc::clone(stopping));
    tokio::spawn(async move {
        let exit = ended
            .await
            .unwrap_or_else(|_| End::new(EndReason::Unknown, "the end of its process was not observed"));
        let last = reports.last().await;
        let WorkerEnd { end, killed } = match (stopping.load(Ordering::Relaxed), last) {
            (true, _) => WorkerEnd { end: End::new(EndReason::Killed, "it was stopped"), killed: false },
            (false, Some(end)) => WorkerEnd { end, killed: false },
            (false, None) => at_start.explain(exit),
        };
        // The last reports come before the end: the head ignores events of a worker that it has removed.
        agent.workers.remove(&agent, worker);
        agent.orphans.worker_ended(&agent, job);
        agent.statistics.worker_ended(worker);
        agent.record(NodeEvent::WorkerEnded { worker, end, killed });
        if let Some(capture) = capture {
            capture.finish().await;
        }
    });
    Ok(())
}

/// Starts the process of a worker, and returns it with the read ends of its output and error pipes.
fn spawn(
    agent: &Agent,
    job: JobId,
    spec: &JobSpec,
    executable: &Path,
    account: Option<&Account>,
) -> Result<(Arc<WorkerProcess>, (OwnedFd, OwnedFd)), String> {
    let directory = agent.jobs.directory(job, account).map_err(|error| error.to_string())?;
    // Another user cannot enter the store of executables, so its account gets a link of its own.
    let program = account.map_or(Ok(executable.to_owned()), |account| account.link(executable));
    let ((out, stdout), (err, stderr)) = (output::pipe(account)?, output::pipe(account)?);
    let process = WorkerProcess::start(WorkerCommand {
        program: program.map_err(|error| format!("cannot give the program to the job's user: {error}"))?,
        arguments: spec.arguments.clone(),
        inherits: false,
        environment: environment(spec, account, &directory),
        directory: Some(directory),
        user: account.map(Account::user),
        stdout: stdout.into(),
        stderr: stderr.into(),
    });
    Ok((Arc::new(process.map_err(|error| Chain(&error).to_string())?), (out, err)))
}

/// Watches a process, and returns the receiver of the description of its end.
fn watch(
    agent: &Arc<Agent>,
    worker: WorkerId,
    process: &WorkerProcess,
) -> Result<oneshot::Receiver<End>, String> {
    let agent = Arc::downgrade(agent);
    let on_suspend = move |suspended| {
        if let Some(agent) = agent.upgrade() {
            agent.workers.set_suspended(&agent, worker, suspended);
        }
    };
    process.on_exit(on_suspend).map_err(|error| error.to_string())
}

/// Sends a worker its identity and limits, and waits until it is ready.
async fn initialise(
    agent: &Agent,
    process: &WorkerProcess,
    spec: &JobSpec,
    hosts: [HostUid; 2],
    node: NodeContext,
) -> Result<(), String> {
    let init = WorkerInit {
        secret: *agent.token.session_secret().as_bytes(),
        limits: spec.limits.clone(),
        stack_bytes: spec.stack_bytes,
        actors: hosts[0],
        tasks: hosts[1],
        node: Some(node),
    };
    match process.initialise(&init, None).await.map_err(|error| Chain(&error).to_string())? {
        WorkerMessage::Ready { .. } => Ok(()),
        WorkerMessage::Failed { why } => Err(why),
        other => Err(format!("unexpected report {other:?} before it was ready")),
    }
}

/// Applies the reports of a worker and forwards them to the head.
fn listen(agent: &Arc<Agent>, worker: WorkerId, process: &WorkerProcess) -> Reports {
    let agent = Arc::clone(agent);
    process.on_report(move |report| match report {
        WorkerMessage::ActorEvents(events) => {
            for event in events {
                agent.workers.on_actor_event(worker, &event);
                agent.statistics.actor_event(worker, &event);
                agent.record(NodeEvent::Actor { worker, event });
            }
        }
        WorkerMessage::Tasks(counts) => {
            agent.workers.on_task_counts(worker, &counts);
            agent.record(NodeEvent::Tasks { worker, counts });
        }
        WorkerMessage::Statistics(mut statistics) => {
            agent.workers.retain_alive(worker, &mut statistics.actors);
            agent.statistics.merge(worker, statistics);
        }
        WorkerMessage::Spans(spans) => agent.spans.push(worker, spans),
        WorkerMessage::Class(_)
        | WorkerMessage::Diverted
        | WorkerMessage::Ready { .. }
        | WorkerMessage::Failed { .. } => {}
    })
}

/// Part of the agent's environment that a job's processes inherit: the variables that any program needs.
pub(super) fn kept_environment(account: Option<&Account>, directory: &Path) -> Variables {
    // A list of allowed names, since the agent's environment may hold secrets.
    const KEPT: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "ROADSHOW_LOG"];
    const USER_VARIABLES: [&str; 3] = ["HOME", "USER", "TMPDIR"];
    let kept = |name: &&str| Some((OsString::from(name), std::env::var_os(name)?));
    let user_variables = match account {
        Some(account) => account.environment(directory),
        None => USER_VARIABLES.iter().filter_map(kept).collect(),
    };
    KEPT.iter().filter_map(kept).chain(user_variables).collect()
}

/// Environment of a worker: the inherited part, and the variables that the job's driver passes on.
fn environment(spec: &JobSpec, account: Option<&Account>, directory: &Path) -> Variables {
    let kept = kept_environment(account, directory);
    // The driver refuses to pass secrets on. A driver that does not is ignored here.
    let passed = spec.environment.iter().filter(|(name, _)| !name.to_str().is_some_and(protocol::is_secret));
    kept.into_iter().chain(passed.cloned()).collect()
}
