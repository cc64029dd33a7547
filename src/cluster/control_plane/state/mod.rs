//! The control plane as a pure state machine: who is where, what runs, what is named.
//!
//! Owns the nodes, jobs, workers and actors of a cluster, and what follows from what happens to them:
//! [`State::handle`] takes what has happened and says what is to be done. It does none of that itself, and
//! the same events lead to the same actions. What one node has room for is the [schedule]'s, and when a
//! lease ends is [membership]'s.
//!
//! What holds after every event:
//!
//! - each question is answered once, or still waits and says why;
//! - of every resource of a node so much is taken as its actors hold, from their placement to their end;
//! - a name has one owner, from when it was asked for until the actor is dead;
//! - whatever waits could be placed on some node, and has no room on any, or none that is not reserved;
//! - what waits and was passed by many has a node reserved, in turn with others of its job;
//! - whoever is not heard of for a lease is dead, with all that depends on it;
//! - while nothing can be kept, no job and no actor is taken on that has to be.
//!
//! An actor goes through
//!
//! ```text
//!             room on a node        a worker is ready      it has begun
//!   Waiting ------------------> Parked --------------> Placed -----------> Alive ---> (forgotten, or past)
//!      ^   \  detached              |                    ^                   ^
//!      |    ------------------> Starting ----------------'                   |
//!      '---- node or worker lost ---'              Missing: the head was away
//! ```
//!
//! [schedule]: super::scheduler
//! [membership]: super::lease

mod actor;
mod crash_loop;
mod deferred;
mod history;
mod ids;
mod job;
mod list;
mod names;
mod node;
mod ordered_map;
mod placement;
mod queries;
mod reconcile;
mod reservations;
mod restore;
mod worker;

pub(in crate::cluster) use super::event::{
    Action, Answer, ControlError, Event, JobEvent, Record, RecordKey, Ticket, WorkerEntry,
};
pub(in crate::cluster) use super::lease::Millis;
pub(in crate::cluster) use list::{ClassSearch, FunctionSearch, Listed, Search};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::lease::Leases;
use super::scheduler::{PendingQueues, Scheduler};
use crate::cluster::model::{ActorKey, JobId, NodeId, WorkerId};
use crate::config;
use crate::id::{HostId, HostUid};
use actor::{Actor, UnplacedActor};
use deferred::DeferredWork;
use history::History;
use ids::IdAllocator;
use job::Job;
use names::{Classes, Names};
use node::Node;
use ordered_map::Table;
use placement::OpenRequest;
use worker::Worker;

/// What may differ from cluster to cluster; the defaults are `config`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Settings {
    /// See [`config::NODE_LEASE`].
    pub(in crate::cluster) node_lease: Duration,
    /// See [`config::JOB_LEASE`].
    pub(in crate::cluster) job_lease: Duration,
    /// See [`config::SUBMITTED_LEASE`].
    pub(in crate::cluster) submitted_lease: Duration,
    /// See [`config::START_LEASE`].
    pub(in crate::cluster) begin_lease: Duration,
    /// See [`config::HISTORY_MAX`].
    pub(in crate::cluster) ended_kept_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_lease: config::NODE_LEASE + config::LEASE_GRACE,
            job_lease: config::JOB_LEASE + config::LEASE_GRACE,
            submitted_lease: config::SUBMITTED_LEASE,
            begin_lease: config::START_LEASE,
            ended_kept_max: config::HISTORY_MAX,
        }
    }
}

/// The time after a start of the head in which its members come back.
#[derive(Clone, Copy, Debug)]
struct Return {
    /// Its latest end.
    until: Millis,
    /// When the last one came.
    last: Millis,
}

/// All that the head of a cluster knows.
#[derive(Debug)]
pub(in crate::cluster) struct State {
    settings: Settings,
    now: Millis,
    ids: IdAllocator,
    /// The agent of the head's own node.
    own_agent: Option<HostUid>,
    nodes: FxHashMap<NodeId, Node>,
    /// Also ended ones, as long as they are kept.
    jobs: BTreeMap<JobId, Job>,
    open_jobs: BTreeSet<JobId>,
    workers: Table<WorkerId, Worker>,
    /// The workers of detached actors.
    own_workers: FxHashMap<ActorKey, WorkerId>,
    /// The workers whose processes a signal has stopped.
    suspended: BTreeSet<WorkerId>,
    /// The ready workers by both of their hosts.
    hosts: FxHashMap<HostId, (HostUid, WorkerId)>,
    actors: Table<ActorKey, Actor>,
    /// Actors that somebody waits for.
    pending: BTreeMap<ActorKey, UnplacedActor>,
    /// Actors that lived when the head went away, and that no node has reported since.
    unaccounted: BTreeSet<ActorKey>,
    rejoin_deadline: Option<Millis>,
    /// Actors that were killed, and run or may run: each is alive, or assigned to a worker.
    stopping: BTreeSet<ActorKey>,
    /// Whoever has no answer yet.
    open_requests: FxHashMap<Ticket, OpenRequest>,
    names: Names,
    classes: Classes,
    schedule: Scheduler,
    waiting: PendingQueues,
    /// Turns of jobs so far that had actors waiting.
    turns: u64,
    returning: Option<Return>,
    node_leases: Leases<NodeId>,
    job_leases: Leases<JobId>,
    /// Of submitted jobs whose drivers nobody has started.
    submitted_leases: Leases<JobId>,
    /// Of detached actors that have a place and have not begun, and whose job is over.
    start_leases: Leases<ActorKey>,
    /// When pools whose workers crash get their next ones.
    restarts: BTreeSet<(Millis, JobId, NodeId)>,
    history: History,
    /// Why what is to be kept cannot be.
    persistence_error: Option<String>,
    deferred: DeferredWork,
    actions: Vec<Action>,
}

impl State {
    /// A cluster of nothing.
    pub(in crate::cluster) fn new(settings: Settings) -> Self {
        Self {
            now: Millis::default(),
            ids: IdAllocator::default(),
            own_agent: None,
            nodes: FxHashMap::default(),
            jobs: BTreeMap::new(),
            open_jobs: BTreeSet::new(),
            workers: Table::default(),
            own_workers: FxHashMap::default(),
            suspended: BTreeSet::new(),
            hosts: FxHashMap::default(),
            actors: Table::default(),
            pending: BTreeMap::new(),
            unaccounted: BTreeSet::new(),
            rejoin_deadline: None,
            stopping: BTreeSet::new(),
            open_requests: FxHashMap::default(),
            names: Names::default(),
            classes: Classes::default(),
            schedule: Scheduler::default(),
            waiting: PendingQueues::default(),
            turns: 0,
            returning: None,
            node_leases: Leases::new(millis(settings.node_lease)),
            job_leases: Leases::new(millis(settings.job_lease)),
            submitted_leases: Leases::new(millis(settings.submitted_lease)),
            start_leases: Leases::new(millis(settings.begin_lease)),
            restarts: BTreeSet::new(),
            history: History::new(settings.ended_kept_max),
            persistence_error: None,
            deferred: DeferredWork::default(),
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes what has happened, and adds to `actions` what is to be done.
    pub(in crate::cluster) fn handle(&mut self, now: Millis, event: Event, actions: &mut Vec<Action>) {
        std::mem::swap(actions, &mut self.actions);
        self.advance_clock(now);
        match event {
            Event::Restored(records) => self.restore(records),
            Event::OwnAgent { agent } => self.own_agent_is(agent),
            Event::NodeJoined(report) => self.node_joined(report),
            Event::NodeHeartbeat { node } => self.node_beat(node),
            Event::NodeLeft { node, cause } => self.node_left(node, &cause),
            Event::NodeDrain { node } => self.node_drain(node),
            Event::WorkerReady { worker, member, pid } => self.worker_ready(worker, member, pid),
            Event::WorkerEnded { worker, cause } => self.worker_ended(worker, &cause),
            Event::WorkerSuspended { worker, suspended } => self.worker_suspended(worker, suspended),
            Event::ActorStarted { actor, worker, at } => self.actor_began(actor, worker, at),
            Event::ActorEnded { actor, cause } => self.actor_ended(actor, &cause),
            Event::NotSpawned { actor, cause } => self.not_spawned(actor, &cause),
            Event::TaskCounts { worker, counts } => self.task_counts(worker, counts),
            Event::JobSubmitted { ticket, facts } => self.job_submitted(ticket, facts),
            Event::JobStarted { ticket, job, facts } => self.job_started(ticket, job, facts),
            Event::JobHeartbeat { job } => self.job_leases.renew(self.now, job),
            Event::NodeProvisioned { job, node } => self.node_equipped(job, node),
            Event::ExecutablePinned { job, node } => self.executable_pinned(job, node),
            Event::DriverStarted { job, node } => self.driver_started(job, node),
            Event::DriverLeft { job, why } => self.driver_left(job, &why),
            Event::JobEnded { job, state, exit_code, message } => {
                self.job_ended(job, state, exit_code, &message);
            }
            Event::Place { ticket, job, spec } => self.place(ticket, job, spec),
            Event::Cancelled { ticket } => self.cancel(ticket),
            Event::Find { ticket, namespace, name } => self.find(ticket, &namespace, &name),
            Event::Kill { ticket, actor } => self.kill(ticket, actor),
            Event::KillWorkerOf { ticket, actor } => self.kill_worker_of(ticket, actor),
            Event::NumbersKept { jobs, workers, actors } => self.ids.kept(jobs, workers, actors),
            Event::PersistenceStatus { trouble } => self.persistence_error = trouble,
            Event::Tick => self.tick(),
        }
        self.run_deferred();
        std::mem::swap(actions, &mut self.actions);
    }

    /// When it is to be told that time has passed, if it is told nothing else until then.
    ///
    /// When it is told nothing for much longer than that, it takes itself to have been asleep, and what it
    /// did not hear in the meantime counts against nobody.
    #[cfg(test)]
    pub(in crate::cluster) fn next_deadline(&self) -> Option<Millis> {
        let leases = [self.node_leases.next(), self.job_leases.next(), self.submitted_leases.next()];
        let restart = self.restarts.first().map(|(at, ..)| *at);
        let others = [self.start_leases.next(), self.rejoin_deadline, restart];
        let first = leases.into_iter().chain(others).flatten().min()?;
        Some(first.min(self.now.after(millis(config::TICK_EVERY))))
    }

    /// Moves the clock on.
    fn advance_clock(&mut self, now: Millis) {
        let gap_ms = now.0.saturating_sub(self.now.0);
        if gap_ms > millis(config::CLOCK_GAP_MAX) {
            self.node_leases.extend(gap_ms);
            self.job_leases.extend(gap_ms);
            self.submitted_leases.extend(gap_ms);
            self.start_leases.extend(gap_ms);
            self.rejoin_deadline = self.rejoin_deadline.map(|until| until.after(gap_ms));
        }
        self.now = self.now.max(now);
    }

    fn tick(&mut self) {
        self.await_return();
        while let Some(node) = self.node_leases.pop_expired(self.now) {
            self.node_lost(node, &lease_expired_text(self.settings.node_lease));
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
        self.restart_workers();
        self.end_reservations();
        if self.rejoin_deadline.is_some_and(|until| until <= self.now) {
            self.fail_unaccounted();
        }
    }

    /// After a start of the head its members come back one after the other. While they do, none is given up:
    /// the head may be what they wait for.
    fn await_return(&mut self) {
        let Some(Return { until, last }) = self.returning else { return };
        if self.now >= until || self.all_rejoined() {
            self.returning = None;
        } else if self.now.since(last) < millis(config::LEASE_GRACE) {
            let until = self.now.after(millis(config::LEASE_GRACE));
            self.node_leases.extend_to(until);
            self.job_leases.extend_to(until);
            self.submitted_leases.extend_to(until);
            self.rejoin_deadline = self.rejoin_deadline.map(|missing| missing.max(until));
        }
    }

    /// A member is back that an earlier life of the head knew.
    fn member_is_back(&mut self) {
        if let Some(returning) = &mut self.returning {
            returning.last = self.now;
        }
    }

    /// What has to be kept cannot be taken on while nothing can: it would be forgotten with this life.
    fn check_persistence(&self) -> Result<(), ControlError> {
        match &self.persistence_error {
            None => Ok(()),
            Some(why) => Err(ControlError::NotPersisted(why.clone())),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer, ControlError>) {
        self.actions.push(Action::Answer { ticket, answer });
    }
}

/// Why somebody is given up.
fn lease_expired_text(lease: Duration) -> String {
    format!("nothing heard for {} s", lease.as_secs_f64())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
