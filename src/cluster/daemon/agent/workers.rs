//! The worker processes of a node: started as the head orders, watched, and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::Agent;
use super::accounts::Account;
use super::output;
use crate::cluster::daemon::agent::oom;
use crate::cluster::launch::control_socket::ControlSocket;
use crate::cluster::launch::control_socket::Reports;
use crate::cluster::launch::process::{WorkerCommand, WorkerProcess};
use crate::cluster::model::WorkerReport;
use crate::cluster::model::{ActorKey, ActorLocation, JobId, TaskCount, WorkerAddress, WorkerId};
use crate::cluster::output::Label;
use crate::cluster::protocol;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::Variables;
use crate::cluster::protocol::worker::{ActorEvent, HeadInfo, NodeContext, Report, WorkerInit};
use crate::cluster::protocol::{JobSpec, NodeEvent};
use crate::config::WORKER_STOP_TIMEOUT;
use crate::host::fresh_identity;
use crate::id::{HostId, HostUid};
use crate::observe::Chain;
use crate::remote::call_host;

/// The workers that run, or are being started.
#[derive(Debug, Default)]
pub(super) struct Workers {
    all: Mutex<FxHashMap<WorkerId, Worker>>,
    routes: Mutex<FxHashMap<HostId, Arc<ControlSocket>>>,
}

#[derive(Debug)]
struct Worker {
    job: JobId,
    detached: Option<ActorKey>,
    /// Nothing before it runs.
    running: Option<Running>,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    process: Arc<WorkerProcess>,
    hosts: [HostUid; 2],
    /// Once it is ready.
    member: Option<WorkerAddress>,
    /// Whether a signal has stopped it.
    suspended: bool,
    actors: BTreeMap<ActorKey, (String, ActorLocation)>,
    /// By the names of their functions.
    tasks: BTreeMap<String, TaskCount>,
    label: Arc<Label>,
}

impl Workers {
    /// Starts a worker; what becomes of it is told to the head.
    pub(super) fn start(&self, agent: &Arc<Agent>, worker: WorkerId, job: JobId, detached: Option<ActorKey>) {
        let stopping = self.reserve(worker, job, detached);
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            let cause = match launch(&agent, worker, job, &stopping).await {
                Ok(()) => return,
                Err(cause) => cause,
            };
            tracing::warn!(%worker, %job, cause, "a worker was not started");
            agent.workers.remove(&agent, worker);
            agent.orphans.worker_ended(&agent, job);
            agent.record(NodeEvent::WorkerEnded { worker, cause });
        });
    }

    /// Takes note of a worker that is to be started; gives what says that it is to end.
    pub(super) fn reserve(
        &self,
        worker: WorkerId,
        job: JobId,
        detached: Option<ActorKey>,
    ) -> Arc<AtomicBool> {
        let stopping = Arc::<AtomicBool>::default();
        let entry = Worker { job, detached, running: None, stopping: Arc::clone(&stopping) };
        self.lock().insert(worker, entry);
        stopping
    }

    /// Ends a worker: in order if it can, and by force when that takes too long.
    pub(super) fn stop(&self, worker: WorkerId) {
        let all = self.lock();
        let Some(entry) = all.get(&worker) else { return };
        entry.stopping.store(true, Ordering::Relaxed);
        if let Some(running) = &entry.running {
            let process = Arc::clone(&running.process);
            tokio::spawn(async move {
                // One that is itself stopped may not even take the request.
                let asking = tokio::time::timeout(WORKER_STOP_TIMEOUT, process.ask_to_stop());
                drop(tokio::join!(asking, tokio::time::sleep(WORKER_STOP_TIMEOUT)));
                // If it has ended by then nothing is left to kill. The process table is read for it.
                drop(tokio::task::spawn_blocking(move || process.kill()).await);
            });
        }
    }

    /// Ends all workers, and waits for it.
    pub(super) async fn stop_all(&self) {
        let ids: Vec<_> = self.lock().keys().copied().collect();
        ids.into_iter().for_each(|worker| self.stop(worker));
        let limit = WORKER_STOP_TIMEOUT + WORKER_STOP_TIMEOUT / 4;
        let ended = async {
            while !self.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("workers were still there when the agent ended");
        }
    }

    /// What runs, for the head.
    pub(super) fn report(&self) -> Vec<WorkerReport> {
        let all = self.lock();
        let report = |(&worker, entry): (&WorkerId, &Worker)| {
            let running = entry.running.as_ref();
            let actors = running.into_iter().flat_map(|running| &running.actors);
            WorkerReport {
                worker,
                job: entry.job,
                detached: entry.detached,
                member: running.and_then(|running| running.member),
                pid: running.map_or(0, |running| running.process.pid()),
                suspended: running.is_some_and(|running| running.suspended),
                actors: actors.map(|(actor, (class, at))| (*actor, class.clone(), *at)).collect(),
                tasks: running.into_iter().flat_map(|running| running.tasks.values().cloned()).collect(),
            }
        };
        let mut reports: Vec<_> = all.iter().map(report).collect();
        reports.sort_unstable_by_key(|report| report.worker);
        reports
    }

    /// Tells all workers that run which host the head is now.
    pub(super) fn announce_head(&self, agent: &Agent, head: HostUid) {
        let at = agent.facts.address;
        for entry in self.lock().values() {
            let Some(hosts) = entry.running.as_ref().map(|running| running.hosts) else { continue };
            let is = HeadInfo { head, at: Some(agent.head_at()), job: entry.job, tracks_all_actors: true };
            for to in hosts {
                let host = agent.host.clone();
                host.add_peer(to, at);
                tokio::spawn(async move {
                    // One that computes takes it up when it is done.
                    let told: Result<(), _> =
                        call_host(&host, to, MEMBERSHIP, MembershipUpdate::Head(is), None).await;
                    if let Err(error) = told {
                        tracing::debug!(%to, %error, "a worker was not told of the head");
                    }
                });
            }
        }
    }

    /// The processes that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        let all = self.lock();
        all.values().filter_map(|entry| Some(entry.running.as_ref()?.process.pid())).collect()
    }

    /// Whether a worker has not ended yet.
    pub(super) fn contains(&self, worker: WorkerId) -> bool {
        self.lock().contains_key(&worker)
    }

    /// The jobs whose workers run, or are being started.
    pub(super) fn jobs(&self) -> BTreeSet<JobId> {
        self.lock().values().map(|entry| entry.job).collect()
    }

    /// Whether workers of a job run, or are being started.
    pub(super) fn has_workers_of(&self, job: JobId) -> bool {
        self.lock().values().any(|entry| entry.job == job)
    }

    /// The way to a host of a worker.
    pub(super) fn route_to(&self, host: HostId) -> Option<Arc<ControlSocket>> {
        self.doors().get(&host).cloned()
    }

    /// The hosts of the workers that run, with what they need to be signed anew.
    pub(super) fn certificate_holders(&self) -> Vec<(JobId, [HostUid; 2], Arc<ControlSocket>)> {
        let all = self.lock();
        let running = all.values().filter_map(|entry| Some((entry.job, entry.running.as_ref()?)));
        running
            .map(|(job, running)| (job, running.hosts, Arc::clone(running.process.control_socket())))
            .collect()
    }

    /// Takes note that a process runs.
    fn set_running(
        &self,
        worker: WorkerId,
        process: &Arc<WorkerProcess>,
        hosts: [HostUid; 2],
        label: &Arc<Label>,
    ) {
        for host in hosts {
            self.doors().insert(host.host, Arc::clone(process.control_socket()));
        }
        if let Some(entry) = self.lock().get_mut(&worker) {
            let (process, label) = (Arc::clone(process), Arc::clone(label));
            entry.running = Some(Running {
                process,
                hosts,
                member: None,
                suspended: false,
                actors: BTreeMap::new(),
                tasks: BTreeMap::new(),
                label,
            });
        }
    }

    fn ready(&self, worker: WorkerId, member: WorkerAddress) {
        if let Some(running) = self.lock().get_mut(&worker).and_then(|entry| entry.running.as_mut()) {
            running.member = Some(member);
        }
    }

    fn on_actor_event(&self, worker: WorkerId, life: &ActorEvent) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        match life {
            ActorEvent::Started { actor, class, at } => {
                running.label.add(class);
                running.actors.insert(*actor, (class.clone(), *at));
            }
            ActorEvent::Stopped { actor, .. } => drop(running.actors.remove(actor)),
        }
    }

    /// Takes note of a process that a signal has stopped, or that goes on.
    fn set_suspended(&self, agent: &Agent, worker: WorkerId, suspended: bool) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        running.suspended = suspended;
        drop(all);
        agent.record(NodeEvent::WorkerSuspended { worker, suspended });
    }

    fn on_task_counts(&self, worker: WorkerId, counts: &[TaskCount]) {
        let mut all = self.lock();
        let Some(running) = all.get_mut(&worker).and_then(|entry| entry.running.as_mut()) else { return };
        running.tasks.extend(counts.iter().map(|count| (count.name.clone(), count.clone())));
    }

    fn remove(&self, agent: &Agent, worker: WorkerId) {
        let Some(entry) = self.lock().remove(&worker) else { return };
        agent.jobs.release_if_idle(entry.job, self);
        for host in entry.running.into_iter().flat_map(|running| running.hosts) {
            self.doors().remove(&host.host);
            agent.host.mark_peer_down(host, "the worker has ended");
            agent.host.forget(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<WorkerId, Worker>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doors(&self) -> MutexGuard<'_, FxHashMap<HostId, Arc<ControlSocket>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a worker, up to where it is ready.
async fn launch(
    agent: &Arc<Agent>,
    worker: WorkerId,
    job: JobId,
    stopping: &Arc<AtomicBool>,
) -> Result<(), String> {
    let (launch, executable, account) =
        agent.jobs.launch(job).ok_or("this node has not got the job's executable")?;
    let account = account.as_deref();
    let hosts = [fresh_identity(), fresh_identity()];
    let credentials = agent.sign(job, hosts).await?;
    let head = agent.head().ok_or("the head is not known")?;
    let directory = agent.jobs.directory(job, account).map_err(|error| error.to_string())?;
    let program = account.map_or(Ok(executable.clone()), |account| account.link(&executable));
    let ((out, stdout), (err, stderr)) = (output::pipe(account)?, output::pipe(account)?);
    let started = WorkerProcess::start(WorkerCommand {
        program: program.map_err(|error| format!("the job's user cannot be given its program: {error}"))?,
        arguments: launch.arguments.clone(),
        inherits: false,
        environment: environment(&launch, account, &directory),
        directory: Some(directory),
        user: account.map(Account::user),
        stdout: stdout.into(),
        stderr: stderr.into(),
    });
    let process = Arc::new(started.map_err(|error| Chain(&error).to_string())?);
    let label = Arc::<Label>::default();
    let capture = output::capture(agent, &launch, worker, process.pid(), &label, (out, err));
    agent.workers.set_running(worker, &process, hosts, &label);
    if stopping.load(Ordering::Relaxed) {
        return Err("it was stopped while it started".to_owned());
    }
    let kills = oom::oom_kill_count();
    let watching = Arc::downgrade(agent);
    let suspended = move |suspended| {
        if let Some(agent) = watching.upgrade() {
            agent.workers.set_suspended(&agent, worker, suspended);
        }
    };
    let ended = process.on_exit(suspended).map_err(|error| error.to_string())?;
    let at = agent.facts.address;
    let bootstrap = WorkerInit {
        secret: *agent.token.session_secret().as_bytes(),
        limits: launch.limits.clone(),
        stack_bytes: launch.stack_bytes,
        actors: hosts[0],
        tasks: hosts[1],
        node: Some(NodeContext {
            credentials,
            address: at,
            head: HeadInfo { head, at: Some(agent.head_at()), job, tracks_all_actors: true },
        }),
    };
    match process.initialise(&bootstrap, None).await.map_err(|error| Chain(&error).to_string())? {
        Report::Ready { .. } => {}
        Report::Failed { why } => return Err(why),
        other => return Err(format!("it reported {other:?} before it was ready")),
    }
    let member = WorkerAddress { actors: hosts[0], actors_at: at, tasks: hosts[1], tasks_at: at };
    agent.workers.ready(worker, member);
    agent.record(NodeEvent::WorkerReady { worker, member, pid: process.pid() });
    if stopping.load(Ordering::Relaxed) {
        agent.workers.stop(worker);
    }
    let reported = listen(agent, worker, &process);
    let (agent, stopping) = (Arc::clone(agent), Arc::clone(stopping));
    tokio::spawn(async move {
        let cause = ended.await.unwrap_or_else(|_| "nobody saw how it ended".to_owned());
        // What it said last comes before its end.
        let told = reported.last().await;
        let cause = match (stopping.load(Ordering::Relaxed), told) {
            (true, _) => "it was stopped".to_owned(),
            (false, Some(why)) => why,
            (false, None) => oom::annotate_oom(cause, kills),
        };
        agent.workers.remove(&agent, worker);
        agent.orphans.worker_ended(&agent, job);
        agent.record(NodeEvent::WorkerEnded { worker, cause });
        if let Some(capture) = capture {
            capture.finish().await;
        }
    });
    Ok(())
}

fn listen(agent: &Arc<Agent>, worker: WorkerId, process: &WorkerProcess) -> Reports {
    let agent = Arc::clone(agent);
    process.on_report(move |report| match report {
        Report::ActorEvents(lives) => {
            for life in lives {
                agent.workers.on_actor_event(worker, &life);
                agent.record(NodeEvent::Actor { worker, life });
            }
        }
        Report::Tasks(counts) => {
            agent.workers.on_task_counts(worker, &counts);
            agent.record(NodeEvent::Tasks { worker, counts });
        }
        Report::Class(_) | Report::Diverted | Report::Ready { .. } | Report::Failed { .. } => {}
    })
}

/// What the environment of a job's processes has of the agent's: what any program needs.
pub(super) fn kept_environment(account: Option<&Account>, directory: &Path) -> Variables {
    const KEPT: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "ROADSHOW_LOG"];
    const OF_THE_USER: [&str; 3] = ["HOME", "USER", "TMPDIR"];
    let kept = |name: &&str| Some((OsString::from(name), std::env::var_os(name)?));
    let of_the_user = match account {
        Some(account) => account.environment(directory),
        None => OF_THE_USER.iter().filter_map(kept).collect(),
    };
    KEPT.iter().filter_map(kept).chain(of_the_user).collect()
}

/// What a worker's environment has: what any program needs, and what the job's driver takes along.
fn environment(launch: &JobSpec, account: Option<&Account>, directory: &Path) -> Variables {
    let kept = kept_environment(account, directory);
    // A driver refuses them; one that does not is not obeyed.
    let taken = launch.environment.iter().filter(|(name, _)| !name.to_str().is_some_and(protocol::is_secret));
    kept.into_iter().chain(taken.cloned()).collect()
}
