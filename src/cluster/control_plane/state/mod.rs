//! State machine of the control plane: nodes, jobs, workers, actors and names.
//!
//! [`ClusterState::handle`] takes an event and appends the actions that follow from it. It carries out none of them,
//! and the same events produce the same actions. Capacity is up to the [scheduler], and expiry to [leases].
//!
//! Invariants after every event:
//!
//! - Each request is answered exactly once, or is pending with a reason.
//! - A node's allocations equal the requirements of its actors, from their placement to their end.
//! - A name has one owner, from the request until the actor is dead.
//! - Each pending actor could run on some node, and currently fits on none, except on reserved ones.
//! - An actor that was passed too often has a node reserved, in turn with other actors of its job.
//! - A node without a heartbeat for a part of its lease is unreachable: nothing new is placed there.
//! - A member without a heartbeat during its lease is dead, with everything that depends on it.
//! - While writes fail, no job or actor is accepted that needs a durable record.
//!
//! Phases of an actor:
//!
//! ```text
//!           a node has room               a worker is ready      it was created
//!   Waiting -----------------> AwaitingWorker ----------> Assigned ----------> Alive ----> (dead: in History)
//!    ^   |   detached                |                       ^                   ^
//!    |   '---------------> Starting -|-----------------------'                   |
//!    |                        |      |                           Unaccounted ----'
//!    '--- node or worker lost +------'                           alive before the head restarted
//! ```
//!
//! [scheduler]: super::scheduler
//! [leases]: super::lease

mod actor;
mod claims;
mod crash_loop;
mod deferred;
mod events;
mod exclusive;
mod history;
mod holders;
mod ids;
mod job;
mod list;
mod managed;
mod names;
mod node;
mod ordered_map;
mod placement;
mod pool;
mod queries;
mod reconcile;
mod replace;
mod reservations;
mod restart_place;
mod restart_report;
mod restore;
mod statistics;
mod supervision;
mod watchers;
mod worker;

pub(in crate::cluster) use super::event::{
    Action, ControlError, ControlEvent, ControlReply, HolderConfiguration, JobEvent, Record, RecordKey,
    RequestId, Ticket, WorkerEntry,
};
pub(in crate::cluster) use super::lease::Millis;
pub(in crate::cluster) use list::{ClassSearch, FunctionSearch, Listed, Search};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::lease::Leases;
use super::scheduler::{PendingQueues, Scheduler};
use crate::cluster::model::{ActorKey, JobId, NodeId, WorkerId};
use crate::config::{self, InjectedBug};
use crate::id::{HostId, HostUid};
use actor::{Actor, UnplacedActor};
use deferred::DeferredWork;
use events::EventLog;
use history::History;
use ids::IdAllocator;
use job::Job;
use managed::ManagedActor;
use names::{Classes, Names};
use node::LiveNode;
use ordered_map::OrderedMap;
use placement::{OpenRequest, PlacementRequest};
use restart_report::RestartCounter;
use statistics::ActorCounts;
use watchers::Watchers;
use worker::LiveWorker;

/// Settings that differ between clusters; the defaults are those of `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Settings {
    /// Silence after which a node is unreachable; see [`config::NODE_UNREACHABLE_AFTER`].
    pub(in crate::cluster) node_unreachable_after: Duration,
    /// Lease of a node; see [`config::NODE_LEASE`].
    pub(in crate::cluster) node_lease: Duration,
    /// Lease of a driver; see [`config::JOB_LEASE`].
    pub(in crate::cluster) job_lease: Duration,
    /// Time limit for the start of a submitted job's driver; see [`config::SUBMITTED_LEASE`].
    pub(in crate::cluster) submitted_lease: Duration,
    /// Time limit for the creation of a detached actor after its job ended; see [`config::START_LEASE`].
    pub(in crate::cluster) start_lease: Duration,
    /// Time limit for the constructor of a killed actor; see [`config::KILL_LEASE`].
    pub(in crate::cluster) kill_lease: Duration,
    /// True for a local cluster, which has one node and never gets another.
    pub(in crate::cluster) is_single_node: bool,
    /// Number of ended rows listed per table; see [`config::HISTORY_MAX`].
    pub(in crate::cluster) history_max: usize,
    /// Bug that a simulation injects.
    pub(in crate::cluster) injected_bug: Option<InjectedBug>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_unreachable_after: config::NODE_UNREACHABLE_AFTER,
            node_lease: config::NODE_LEASE,
            job_lease: config::JOB_LEASE,
            submitted_lease: config::SUBMITTED_LEASE,
            start_lease: config::START_LEASE,
            kill_lease: config::KILL_LEASE,
            is_single_node: false,
            history_max: config::HISTORY_MAX,
            injected_bug: None,
        }
    }
}

/// Period after a restart of the head in which its members rejoin.
#[derive(Clone, Copy, Debug)]
struct RejoinPeriod {
    /// Latest end of the period.
    until: Millis,
    /// Time at which the last member rejoined.
    last: Millis,
}

/// Complete state of a cluster.
#[derive(Debug)]
pub(in crate::cluster) struct ClusterState {
    settings: Settings,
    now: Millis,
    /// Number of the events that may have changed rows of a list.
    version: u64,
    ids: IdAllocator,
    /// Agent of the head's own node.
    own_agent: Option<HostUid>,
    nodes: FxHashMap<NodeId, LiveNode>,
    /// All jobs; ended ones as long as they are listed.
    jobs: BTreeMap<JobId, Job>,
    open_jobs: BTreeSet<JobId>,
    workers: OrderedMap<WorkerId, LiveWorker>,
    /// Dedicated workers of detached actors.
    dedicated_workers: FxHashMap<ActorKey, WorkerId>,
    /// Workers whose processes are stopped by a signal.
    suspended: BTreeSet<WorkerId>,
    /// Ready workers, by either of their hosts.
    hosts: FxHashMap<HostId, (HostUid, WorkerId)>,
    actors: OrderedMap<ActorKey, Actor>,
    /// Managed part of the actors that are restarted.
    managed: FxHashMap<ActorKey, ManagedActor>,
    restart_counter: RestartCounter,
    /// Configurations of the states of durable actors.
    holders: FxHashMap<ActorKey, HolderConfiguration>,
    /// Ends of the back-offs of restarting actors.
    backing_off: BTreeSet<(Millis, ActorKey)>,
    /// Exclusive actors of which an earlier incarnation may still run.
    fenced: BTreeSet<ActorKey>,
    /// Time at which the records of an earlier incarnation of the head were restored.
    restored: Millis,
    /// Actors that have not been assigned to a worker, with the requests that wait for them.
    pending: BTreeMap<ActorKey, UnplacedActor>,
    /// Actors alive before the head restarted that no node has reported since.
    unaccounted: BTreeSet<ActorKey>,
    rejoin_deadline: Option<Millis>,
    /// Killed actors that may still run: each is alive, or assigned to a worker that may be creating it.
    stopping: BTreeSet<ActorKey>,
    /// Managed actors by the requests that have created them.
    requested: FxHashMap<RequestId, ActorKey>,
    /// Hosts of the requesters that create assigned actors, until these are alive.
    creators: FxHashMap<ActorKey, HostUid>,
    /// Requests without a reply.
    open_requests: FxHashMap<Ticket, OpenRequest>,
    names: Names,
    classes: Classes,
    schedule: Scheduler,
    waiting: PendingQueues,
    /// Turns that jobs with pending actors have had.
    turns: u64,
    rejoin_period: Option<RejoinPeriod>,
    /// Nodes that have joined and are reachable, each until it has been silent for too long.
    reachable_leases: Leases<NodeId>,
    node_leases: Leases<NodeId>,
    job_leases: Leases<JobId>,
    /// Submitted jobs whose drivers have not started.
    submitted_leases: Leases<JobId>,
    /// Actors that are assigned but not created, and whose requester has ended; detached ones, and their job has ended.
    start_leases: Leases<ActorKey>,
    /// Actors that were killed while they were assigned and not created.
    kill_leases: Leases<ActorKey>,
    /// Times at which pools in a crash loop start their next workers.
    restarts: BTreeSet<(Millis, JobId, NodeId)>,
    history: History,
    events: EventLog,
    actor_counts: ActorCounts,
    watchers: Watchers,
    /// Reason why writes fail; `None` while they succeed.
    persistence_error: Option<String>,
    deferred: DeferredWork,
    actions: Vec<Action>,
}

impl ClusterState {
    /// Creates the state of an empty cluster.
    pub(in crate::cluster) fn new(settings: Settings) -> Self {
        Self {
            now: Millis::default(),
            version: 0,
            ids: IdAllocator::default(),
            own_agent: None,
            nodes: FxHashMap::default(),
            jobs: BTreeMap::new(),
            open_jobs: BTreeSet::new(),
            workers: OrderedMap::default(),
            dedicated_workers: FxHashMap::default(),
            suspended: BTreeSet::new(),
            hosts: FxHashMap::default(),
            actors: OrderedMap::default(),
            managed: FxHashMap::default(),
            restart_counter: RestartCounter::default(),
            holders: FxHashMap::default(),
            backing_off: BTreeSet::new(),
            fenced: BTreeSet::new(),
            restored: Millis::default(),
            pending: BTreeMap::new(),
            unaccounted: BTreeSet::new(),
            rejoin_deadline: None,
            stopping: BTreeSet::new(),
            requested: FxHashMap::default(),
            creators: FxHashMap::default(),
            open_requests: FxHashMap::default(),
            names: Names::default(),
            classes: Classes::default(),
            schedule: Scheduler::default(),
            waiting: PendingQueues::default(),
            turns: 0,
            rejoin_period: None,
            reachable_leases: Leases::new(millis(settings.node_unreachable_after)),
            node_leases: Leases::new(millis(settings.node_lease)),
            job_leases: Leases::new(millis(settings.job_lease)),
            submitted_leases: Leases::new(millis(settings.submitted_lease)),
            start_leases: Leases::new(millis(settings.start_lease)),
            kill_leases: Leases::new(millis(settings.kill_lease)),
            restarts: BTreeSet::new(),
            history: History::new(settings.history_max),
            events: EventLog::default(),
            actor_counts: ActorCounts::default(),
            watchers: Watchers::default(),
            persistence_error: None,
            deferred: DeferredWork::default(),
            actions: Vec::new(),
            settings,
        }
    }

    /// Handles an event, and appends the actions that follow from it.
    pub(in crate::cluster) fn handle(&mut self, now: Millis, event: ControlEvent, actions: &mut Vec<Action>) {
        // Handlers push to `self.actions`; the swap lends them the caller's buffer, which keeps its capacity
        // from event to event.
        std::mem::swap(actions, &mut self.actions);
        self.advance_clock(now);
        let effects = |state: &Self| (state.actions.len(), state.history.count(), state.events.last());
        let (changes_rows, before) = (event.changes_rows(), effects(self));
        match event {
            ControlEvent::Restored(records) => self.restore(records),
            ControlEvent::OwnAgent { agent } => self.set_own_agent(agent),
            ControlEvent::NodeJoined(report) => self.node_joined(report),
            ControlEvent::NodeHeartbeat { node } => self.node_heartbeat(node),
            ControlEvent::NodeLeft { node, cause } => self.node_left(node, &cause),
            ControlEvent::NodeDrain { node } => self.node_drain(node),
            ControlEvent::WorkerReady { worker, member, pid } => self.worker_ready(worker, member, pid),
            ControlEvent::WorkerEnded { worker, end, killed } => self.worker_ended(worker, &end, killed),
            ControlEvent::WorkerSuspended { worker, suspended } => self.worker_suspended(worker, suspended),
            ControlEvent::ActorStarted { actor, worker, at } => self.actor_started(actor, worker, at),
            ControlEvent::ActorEnded { actor, incarnation, end } => self.actor_ended(actor, incarnation, end),
            ControlEvent::SpawnCancelled { actor, cause } => self.spawn_cancelled(actor, &cause),
            ControlEvent::SpawnGivenUp { actor } => self.spawn_given_up(actor),
            ControlEvent::StartNotPersisted { actor, at, why } => self.start_not_persisted(actor, at, why),
            ControlEvent::TaskCounts { worker, counts } => self.task_counts(worker, counts),
            ControlEvent::Statistics { worker, statistics } => self.merge_statistics(worker, statistics),
            ControlEvent::JobSubmitted { ticket, descriptor } => self.job_submitted(ticket, descriptor),
            ControlEvent::JobStarted { ticket, job, descriptor } => self.job_started(ticket, job, descriptor),
            ControlEvent::JobHeartbeat { job } => self.job_leases.renew(self.now, job),
            ControlEvent::NodeProvisioned { job, node } => self.node_provisioned(job, node),
            ControlEvent::ExecutablePinned { job, node } => self.executable_pinned(job, node),
            ControlEvent::DriverStarted { job, node } => self.driver_started(job, node),
            ControlEvent::DriverLeft { job, why } => self.driver_left(job, &why),
            ControlEvent::JobEnded { job, state, exit_code, message } => {
                self.job_ended(job, state, exit_code, &message);
            }
            ControlEvent::Place { ticket, job, spec, recipe, id } => {
                self.place(PlacementRequest { ticket, job, spec, recipe, id });
            }
            ControlEvent::Abandoned { id } => self.abandon(id),
            ControlEvent::Locate { ticket, actor, gone } => self.locate(ticket, actor, gone),
            ControlEvent::Cancelled { ticket } => self.cancel(ticket),
            ControlEvent::Find { ticket, namespace, name } => self.find(ticket, &namespace, &name),
            ControlEvent::WatchNode { ticket, node } => self.watch_node(ticket, node),
            ControlEvent::WatchJob { ticket, job } => self.watch_job(ticket, job),
            ControlEvent::WatchActor { ticket, actor } => self.watch_actor(ticket, actor),
            ControlEvent::HolderStarted { node, holder } => self.holder_started(node, holder),
            ControlEvent::CheckHolders { ticket, copies } => self.check_holders(ticket, copies),
            ControlEvent::ProposeHolders { ticket, request } => self.propose_holders(ticket, request),
            ControlEvent::ActivateHolders { ticket, actor, incarnation, number } => {
                self.activate_holders(ticket, actor, incarnation, number);
            }
            ControlEvent::Kill { ticket, actor } => self.kill(ticket, actor),
            ControlEvent::KillWorkerOf { ticket, actor } => self.kill_worker_of(ticket, actor),
            ControlEvent::WatermarksDurable { jobs, workers, actors } => {
                self.ids.mark_durable(jobs, workers, actors)
            }
            ControlEvent::PersistenceStatus { trouble } => self.persistence_error = trouble,
            ControlEvent::Tick => self.tick(),
        }
        // Last, so that the invariants hold again: handlers only note which nodes have gained room and which
        // actors have lost theirs.
        self.run_deferred();
        // A tick or a heartbeat changes rows only with an action, a row in the history or an event.
        let has_effects = before != effects(self);
        self.version += u64::from(changes_rows || has_effects);
        std::mem::swap(actions, &mut self.actions);
    }

    /// Time by which the state must handle a [`Tick`](ControlEvent::Tick) if no other event arrives.
    ///
    /// If it handles no event for much longer, it assumes that the process was suspended, and extends all
    /// leases.
    #[cfg(test)]
    pub(in crate::cluster) fn next_deadline(&self) -> Option<Millis> {
        let leases = [self.node_leases.next(), self.job_leases.next(), self.submitted_leases.next()];
        let restart = self.restarts.first().map(|(at, ..)| *at);
        let backoff = self.backing_off.first().map(|(at, _)| *at);
        let reachable = self.reachable_leases.next();
        let killed = self.kill_leases.next();
        let others = [reachable, self.start_leases.next(), killed, self.rejoin_deadline, restart, backoff];
        let first = leases.into_iter().chain(others).flatten().min()?;
        Some(first.min(self.now.after(millis(config::TICK_EVERY))))
    }

    /// Advances the clock, which never goes back.
    fn advance_clock(&mut self, now: Millis) {
        // A gap means that the process did not run, or its machine slept. Heartbeats could not arrive then,
        // so the gap must not count against any member.
        let gap_ms = now.0.saturating_sub(self.now.0);
        if gap_ms > millis(config::CLOCK_GAP_MAX) {
            // One tick of it counts. On a machine where each tick is late, leases would never expire otherwise.
            let lost_ms = gap_ms.saturating_sub(millis(config::TICK_EVERY));
            self.reachable_leases.extend(lost_ms);
            self.node_leases.extend(lost_ms);
            self.job_leases.extend(lost_ms);
            self.submitted_leases.extend(lost_ms);
            self.start_leases.extend(lost_ms);
            self.kill_leases.extend(lost_ms);
            self.rejoin_deadline = self.rejoin_deadline.map(|until| until.after(lost_ms));
        }
        self.now = self.now.max(now);
    }

    fn tick(&mut self) {
        // First, since it may extend leases that would expire below.
        self.extend_leases_while_rejoining();
        // Nodes before jobs: a driver that is lost with its node ends with the cause of the node.
        while let Some(node) = self.node_leases.pop_expired(self.now) {
            self.node_lost(node, &lease_expired_text(self.settings.node_lease));
        }
        // After the dead ones, whose leases here have ended with them.
        while let Some(node) = self.reachable_leases.pop_expired(self.now) {
            self.node_unreachable(node);
        }
        while let Some(job) = self.job_leases.pop_expired(self.now) {
            self.job_lease_expired(job);
        }
        while let Some(job) = self.submitted_leases.pop_expired(self.now) {
            self.submitted_lease_expired(job);
        }
        while let Some(actor) = self.start_leases.pop_expired(self.now) {
            self.start_lease_expired(actor);
        }
        while let Some(actor) = self.kill_leases.pop_expired(self.now) {
            self.kill_lease_expired(actor);
        }
        // After the leases: the pools of nodes and jobs that ended above are gone, and must not be filled.
        self.restart_workers();
        self.end_leases_of_exclusive_actors();
        self.end_backoffs();
        self.end_reservations();
        if self.rejoin_deadline.is_some_and(|until| until <= self.now) {
            self.fail_unaccounted();
        }
    }

    /// Extends the leases while members rejoin one after the other after a restart of the head.
    ///
    /// A member may be unable to reach the head only because others keep it busy.
    fn extend_leases_while_rejoining(&mut self) {
        let Some(RejoinPeriod { until, last }) = self.rejoin_period else { return };
        // The leases run again once no member has rejoined for `REJOIN_GAP_MAX`: the missing ones are
        // probably gone. `until` bounds the period even if members rejoin one by one forever.
        if self.now >= until || self.all_rejoined() {
            self.rejoin_period = None;
        } else if self.now.since(last) < millis(config::REJOIN_GAP_MAX) {
            let until = self.now.after(millis(config::REJOIN_GAP_MAX));
            self.reachable_leases.extend_to(until);
            self.node_leases.extend_to(until);
            self.job_leases.extend_to(until);
            self.submitted_leases.extend_to(until);
            self.rejoin_deadline = self.rejoin_deadline.map(|missing| missing.max(until));
        }
    }

    /// Notes that a member known to an earlier incarnation of the head has rejoined.
    fn member_rejoined(&mut self) {
        if let Some(rejoin_period) = &mut self.rejoin_period {
            rejoin_period.last = self.now;
        }
    }

    /// Refuses work that needs a durable record while writes fail.
    fn check_persistence(&self) -> Result<(), ControlError> {
        // Without its record the work would be forgotten when the head restarts.
        match &self.persistence_error {
            None => Ok(()),
            Some(why) => Err(ControlError::NotPersisted(why.clone())),
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Result<ControlReply, ControlError>) {
        self.actions.push(Action::Reply { ticket, reply });
    }
}

/// Cause of death of a member whose lease expired.
fn lease_expired_text(lease: Duration) -> String {
    format!("no heartbeat for {} s", lease.as_secs_f64())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
