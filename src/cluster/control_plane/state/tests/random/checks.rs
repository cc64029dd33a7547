//! Invariants after every event, and the state after all members have gone silent.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::actor::ActorPhase;
use super::super::super::placement::{NameWaiter, OpenRequest};
use super::*;
use crate::cluster::control_plane::scheduler::Queue;
use crate::cluster::model::{AlertKind, WorkerState};

impl World {
    pub(super) fn check(&mut self) {
        self.check_resources();
        self.check_reachability();
        self.check_requests();
        self.check_names();
        self.check_actors();
        self.check_managed();
        self.check_workers();
        self.check_jobs();
        self.check_queues();
    }

    /// Allocations equal the requirements of the actors, and never exceed the capacity.
    fn check_resources(&self) {
        let state = &self.harness.state;
        let mut allocated: BTreeMap<NodeId, u64> = BTreeMap::new();
        for actor in state.actors().into_iter().filter(|actor| actor.state != ActorState::Dead) {
            let cpus = actor.resources.0.get(Resources::CPU).map_or(0, |cpus| cpus.0);
            actor.node_id.into_iter().for_each(|node| *allocated.entry(node).or_default() += cpus);
        }
        for node in state.nodes().into_iter().filter(|node| node.state != NodeState::Dead) {
            let [total, free] = [&node.resources, &node.available].map(|it| it.0[Resources::CPU].0);
            let allocated = allocated.remove(&node.node_id).unwrap_or_default();
            assert!(allocated <= total, "{allocated} of {total} are held of {}", node.node_id);
            assert_eq!(free, total - allocated, "of {}", node.node_id);
        }
        assert!(allocated.is_empty(), "resources are held of nodes that are not there: {allocated:?}");
    }

    /// Exactly the nodes that were silent for too long are unreachable.
    fn check_reachability(&self) {
        let state = &self.harness.state;
        for (id, node) in &state.nodes {
            assert_eq!(node.is_unreachable, self.silent.contains(id), "{id}");
            assert_eq!(node.has_rejoined, node.is_unreachable || self.heard_until.contains_key(id), "{id}");
        }
        let alerts = state.alerts().iter().filter(|alert| alert.kind == AlertKind::UnreachableNode).count();
        assert_eq!(alerts, self.silent.len());
    }

    /// Each open request is known to the state, and every wait has a reason.
    fn check_requests(&self) {
        let state = &self.harness.state;
        let mut requests: Vec<Ticket> = state.open_requests.keys().copied().collect();
        requests.sort_unstable();
        assert_eq!(requests, self.open.iter().copied().collect::<Vec<_>>());
        let unplaced = state.actors.values().filter(|actor| actor.phase.is_unplaced()).count();
        assert_eq!((state.pending.len(), state.waiting(usize::MAX).len()), (unplaced, unplaced));
        assert!(state.waiting(usize::MAX).iter().all(|waiting| !waiting.reason.is_empty()));
        let waiting_tickets: usize = state.jobs.values().map(|job| job.waiting_tickets.len()).sum();
        let waiters = state.actors.values().filter_map(|actor| actor.named.as_ref());
        let waiters = waiters.flat_map(|named| named.waiters.values());
        let finds = waiters.clone().filter(|it| matches!(it, NameWaiter::Find { .. }));
        assert_eq!(waiting_tickets + finds.count(), waiters.clone().count());
        // The request for a managed actor stays open until it is alive, and its restarts have none.
        let placed = state.pending.values().filter(|unplaced| unplaced.ticket.is_some()).count();
        let spawners = state.managed.values().filter(|managed| managed.spawner.is_some()).count();
        let locators: usize = state.managed.values().map(|managed| managed.locators.len()).sum();
        assert_eq!(requests.len(), placed + spawners + locators + waiters.count());
    }

    /// Each name has one owner that is not dead.
    fn check_names(&self) {
        let state = &self.harness.state;
        let named = state.actors.iter().filter_map(|(key, actor)| Some((key, actor.named.as_ref()?)));
        let mut count = 0;
        for (key, named) in named {
            assert_eq!(state.names.owner(&named.namespace, &named.name), Some(*key));
            count += 1;
        }
        assert_eq!(state.names.all().count(), count);
    }

    /// An actor is pending, alive and dead in this order, and dead after its job.
    fn check_actors(&mut self) {
        let state = &self.harness.state;
        for actor in state.actors() {
            let before = self.states.insert(actor.actor_id, actor.state);
            let legal = match (before, actor.state) {
                (None | Some(ActorState::PendingCreation), _) => true,
                (Some(ActorState::Alive), ActorState::Alive | ActorState::Dead) => true,
                // No node has reported it since the head restarted.
                (Some(ActorState::Alive | ActorState::Restarting), ActorState::PendingCreation) => {
                    self.restarted
                }
                (Some(ActorState::Alive), ActorState::Restarting) => state.is_restarting(actor.actor_id),
                (Some(ActorState::Restarting), ActorState::Alive | ActorState::Dead) => true,
                (Some(before), now) => before == now,
            };
            assert!(legal, "{} was {before:?} and is {:?}", actor.actor_id, actor.state);
            assert!(actor.state == ActorState::Alive || actor.cause.is_some());
        }
        assert!(state.stopping.iter().all(|key| state.actors.contains_key(key)));
        for (key, actor) in &state.actors {
            let open = state.is_active(actor.job);
            let may_live =
                actor.detached && matches!(actor.phase, ActorPhase::Alive(..) | ActorPhase::Unaccounted);
            assert!(open || may_live || state.may_still_start(*key), "{key} outlives its job");
            let unassigned =
                state.jobs.get(&actor.job).is_some_and(|job| job.unassigned_actors.contains(key));
            let in_pool = !actor.detached && actor.phase.worker().is_some();
            assert_eq!(unassigned, open && !in_pool && !may_live, "{key}");
            assert_eq!(state.unaccounted.contains(key), actor.phase == ActorPhase::Unaccounted);
            let may_run = matches!(
                actor.phase,
                ActorPhase::Assigned(_) | ActorPhase::Alive(..) | ActorPhase::Unaccounted
            );
            assert!(!state.stopping.contains(key) || may_run);
            let killed_early = state.stopping.contains(key) && matches!(actor.phase, ActorPhase::Assigned(_));
            assert_eq!(state.kill_leases.has(*key), killed_early, "{key} stays killed for ever");
        }
    }

    /// Managed actors have a recipe, one believed incarnation, and the records of both.
    fn check_managed(&mut self) {
        let state = &self.harness.state;
        for (key, managed) in &state.managed {
            let latest = self.latest.insert(*key, managed.incarnation);
            assert!(latest.is_none_or(|latest| latest <= managed.incarnation), "{key} goes back");
        }
        let records = self.records();
        let mut recipe_bytes: BTreeMap<JobId, usize> = BTreeMap::new();
        for (key, managed) in &state.managed {
            let actor = &state.actors[key];
            assert!(!actor.detached, "{key} would outlive its executable");
            *recipe_bytes.entry(actor.job).or_default() += managed.recipe.len();
            let is_restarting = managed.is_restarting;
            let is_pending = actor.phase.is_unplaced() || matches!(actor.phase, ActorPhase::Assigned(_));
            assert!(!is_restarting || is_pending, "{key} restarts and is {:?}", actor.phase);
            let back_offs = state.backing_off.iter().filter(|(_, actor)| actor == key).count();
            assert_eq!(back_offs, usize::from(actor.phase == ActorPhase::BackingOff), "{key}");
            if let ActorPhase::Alive(worker, target) = actor.phase {
                assert_eq!(target, managed_location(worker, *key, managed.incarnation.0).target);
                assert!(managed.spawner.is_none(), "the request for {key} has no reply");
                let mut gone = managed.locators.values();
                assert!(gone.all(|gone| *gone >= Some(managed.incarnation)), "{key} could be located");
            }
            assert!(
                matches!(records.get(&RecordKey::Recipe(*key)), Some(Record::Recipe { recipe, .. }) if *recipe == *managed.recipe)
            );
            let was_assigned = !actor.phase.is_unplaced() || is_restarting;
            let recorded = match records.get(&RecordKey::Actor(*key)) {
                Some(Record::Actor { incarnation, spec, is_killed, .. }) => {
                    Some((*incarnation, spec.restart, *is_killed))
                }
                _ => None,
            };
            let is_killed = state.stopping.contains(key);
            let expected = was_assigned.then_some((managed.incarnation, Some(managed.policy), is_killed));
            assert_eq!(recorded, expected, "{key}");
        }
        assert_eq!(
            state.backing_off.len(),
            state.actors.values().filter(|actor| actor.phase == ActorPhase::BackingOff).count()
        );
        for request in state.open_requests.values() {
            if let OpenRequest::WaitForActor { job: Some(job), recipe_bytes: bytes, .. } = request {
                *recipe_bytes.entry(*job).or_default() += bytes;
            }
        }
        for (id, job) in &state.jobs {
            assert_eq!(job.recipe_bytes, recipe_bytes.remove(id).unwrap_or_default(), "of job {id}");
        }
        assert!(recipe_bytes.is_empty());
        let requests = state.managed.iter().filter_map(|(key, managed)| Some((managed.request?, *key)));
        assert_eq!(
            requests.collect::<BTreeMap<_, _>>(),
            state.requested.iter().map(|(r, key)| (*r, *key)).collect()
        );
        let recipes = records.keys().filter(|key| matches!(key, RecordKey::Recipe(_)));
        assert_eq!(recipes.count(), state.managed.len(), "recipes stay behind");
        self.check_incarnations();
    }

    /// Each incarnation that runs in a worker which the head reaches is the believed one, or was told to stop, or is once
    /// the disk is written.
    fn check_incarnations(&self) {
        let state = &self.harness.state;
        let linked =
            self.nodes.values().filter(|actual| actual.linked && state.is_member(actual.descriptor.agent));
        let workers =
            linked.flat_map(|actual| &actual.workers).filter(|(id, _)| state.workers.contains_key(id));
        for (id, worker) in workers {
            for (key, incarnation) in worker.actors.iter().filter(|(key, _)| self.is_managed(**key)) {
                let target = managed_location(*id, *key, incarnation.0).target;
                let phase = state.actors.get(key).map(|actor| actor.phase);
                let is_believed = phase == Some(ActorPhase::Alive(*id, target));
                let is_told = self.told_to_stop.contains(&(*id, *key, *incarnation));
                let mut held =
                    self.unsent_stops.iter().map(|(_, worker, key, at)| (*worker, *key, at.target));
                let is_told = is_told || held.any(|stop| stop == (*id, *key, target));
                assert!(is_believed || is_told, "{key} runs as {incarnation} in {id}, and is {phase:?}");
            }
        }
    }

    /// Workers and actors refer to each other consistently.
    fn check_workers(&self) {
        let state = &self.harness.state;
        let mut assigned = 0;
        for (id, worker) in &state.workers {
            let node = &state.nodes[&worker.node];
            let dedicated = worker.detached.is_none_or(|actor| state.actors.contains_key(&actor));
            assert!(dedicated, "worker {id} runs for an actor that is no more");
            assert!(node.workers.contains(id));
            // A dedicated worker is in no pool: the job neither shares it nor replaces it.
            let pool = state.jobs.get(&worker.job).and_then(|job| job.pools.get(&worker.node));
            let in_pool = pool.is_some_and(|pool| pool.workers.contains(id));
            assert_eq!(in_pool, worker.detached.is_none());
            let alive =
                worker.actors.iter().filter(|key| matches!(state.actors[*key].phase, ActorPhase::Alive(..)));
            assert_eq!(alive.count(), worker.alive_actors);
            // `swap_remove` moves actors within the list, so their indexes are easily wrong.
            for (at, key) in worker.actors.iter().enumerate() {
                let actor = &state.actors[key];
                assert_eq!((actor.index_in_worker as usize, actor.phase.worker()), (at, Some(*id)));
                assert_eq!(actor.job, worker.job);
            }
            assigned += worker.actors.len();
            if let Some(member) = worker.member {
                assert_eq!(state.worker_of(member.actors), Some(*id));
            }
        }
        assert_eq!(assigned, state.actors.values().filter(|actor| actor.phase.worker().is_some()).count());
        let dedicated = state.workers.iter().filter_map(|(id, worker)| Some((worker.detached?, *id)));
        assert_eq!(
            dedicated.collect::<BTreeMap<_, _>>(),
            state.dedicated_workers.iter().map(|(a, w)| (*a, *w)).collect()
        );
        let suspended = state.workers.iter().filter(|(_, worker)| worker.suspended).map(|(id, _)| *id);
        assert_eq!(suspended.collect::<BTreeSet<_>>(), state.suspended);
        let ready = state.workers().iter().filter(|worker| worker.state == WorkerState::Alive).count();
        assert_eq!(state.hosts.len(), 2 * ready);
        assert_eq!(state.nodes.values().map(|node| node.workers.len()).sum::<usize>(), state.workers.len());
        for (id, job) in &state.jobs {
            for (node, pool) in &job.pools {
                assert!(state.nodes[node].pools.contains(id));
                assert!(pool.awaiting_worker.is_empty() || !pool.workers.is_empty());
                assert!(
                    pool.awaiting_worker
                        .iter()
                        .all(|key| state.actors[key].phase == ActorPhase::AwaitingWorker(*node))
                );
            }
        }
    }

    /// Jobs hold nothing after their end; open ones have a lease or a driver, and pools are filled in time.
    fn check_jobs(&self) {
        let state = &self.harness.state;
        for (id, node) in &state.nodes {
            assert!(node.pinned_jobs.iter().all(|job| state.open_jobs.contains(job)));
            let actual = self
                .nodes
                .get(&id.0)
                .filter(|actual| actual.linked && state.is_member(actual.descriptor.agent));
            let Some(actual) = actual else { continue };
            assert_eq!(node.pinned_jobs, actual.pinned, "node {id} holds more or less than is believed");
            assert!(actual.drivers.iter().all(|job| state.open_jobs.contains(job)));
        }
        for (key, actor) in &state.actors {
            let outlives_job = state.may_still_start(*key) && !state.is_active(actor.job);
            let creator =
                self.assigned_to.get(key).filter(|_| matches!(actor.phase, ActorPhase::Assigned(_)));
            let is_orphan = creator.is_some_and(|creator| !state.may_speak_for(*creator, actor.job))
                || self.given_up.contains(key) && matches!(actor.phase, ActorPhase::Assigned(_));
            let has_lease = state.start_leases.has(*key);
            let is_due = outlives_job || is_orphan;
            assert!(has_lease || !is_due, "{key} waits for ever");
            // A host without a worker counts as ended, or as one to rejoin, depending on nodes that come and go.
            let is_doubtful = creator.is_some_and(|creator| state.worker_of(*creator).is_none());
            assert!(is_due || is_doubtful || !has_lease, "{key} is given up");
        }
        let mut back_offs = 0;
        for (id, job) in &state.jobs {
            let has = (state.job_leases.has(*id), state.submitted_leases.has(*id));
            match (job.state.is_open(), job.descriptor.driver) {
                (true, Some(_)) => assert_eq!(has, (true, false)),
                (true, None) => assert!(!has.0 && (has.1 || self.runs_driver(*id)), "{id} waits for ever"),
                (false, _) => assert_eq!(has, (false, false)),
            }
            for (node, pool) in &job.pools {
                let next = pool.crash_loop.next_start();
                assert!(next.is_none_or(|at| state.restarts.contains(&(at, *id, *node))));
                back_offs += usize::from(next.is_some());
                let goes_on = state.nodes[node].state == NodeState::Alive && pool.blocked.is_none();
                assert!(!goes_on || next.is_some() || !pool.workers.is_empty(), "nothing is started");
            }
        }
        assert_eq!(state.restarts.len(), back_offs);
    }

    fn runs_driver(&self, job: JobId) -> bool {
        self.nodes.values().any(|actual| actual.drivers.contains(&job))
    }

    /// Each pending actor fits on some empty node, but for those that restart, and on no node as it is.
    fn check_queues(&self) {
        let state = &self.harness.state;
        let mut waiting = 0;
        for (queue, actors) in state.waiting.queues() {
            let may_wait = |key: &ActorKey| state.is_restarting(*key);
            assert!(
                state.schedule.is_feasible(queue.1) || actors.iter().all(may_wait),
                "{actors:?} wait in vain"
            );
            let fits = state.nodes.keys().find(|node| state.schedule.fits(**node, queue));
            assert_eq!(fits, None, "{actors:?} wait, and there is room");
            waiting += actors.len();
        }
        assert_eq!(waiting, state.actors.values().filter(|actor| actor.phase == ActorPhase::Waiting).count());
        state.waiting.check(state.now);
        let reserved = state.waiting.reservations().map(|(node, (_, shape))| (node, shape));
        state.schedule.check_reserved(reserved);
        for (node, queue) in state.waiting.reservations() {
            assert_eq!(state.waiting.reservation(queue), Some(node));
            assert!(state.schedule.is_possible_on(node, queue), "{node} is reserved in vain");
            assert!(
                !state.schedule.fits_reserved(node, queue),
                "{node} has room for what it is reserved for"
            );
        }
    }

    /// Allocated CPUs of the reserved nodes, with the queues that they are reserved for.
    pub(super) fn held_of_reserved(&self) -> BTreeMap<NodeId, (Queue, u64)> {
        let state = &self.harness.state;
        let allocated = |node: NodeId| {
            let total = state.nodes[&node].descriptor.resources.0[Resources::CPU].0;
            total - state.schedule.available(node).0[Resources::CPU].0
        };
        state.waiting.reservations().map(|(node, queue)| (node, (queue, allocated(node)))).collect()
    }

    /// Lets all members go silent: every lease expires, and everything else with it.
    ///
    /// Nodes go silent later than drivers.
    pub(super) fn silence_all(&mut self) {
        self.step(&Step::DiskFrees);
        for _ in 0..80 {
            self.harness.now += 500;
            self.send_node_heartbeats();
            self.event(ControlEvent::Tick);
            self.check();
        }
        assert!(self.harness.state.open_jobs.iter().all(|job| self.runs_driver(*job)));
        for _ in 0..60 {
            self.harness.now += 500;
            self.event(ControlEvent::Tick);
            self.check();
        }
        let state = &self.harness.state;
        assert_eq!(state.next_deadline(), None);
        assert!(state.nodes().iter().all(|node| node.state == NodeState::Dead));
        assert!(state.jobs().iter().all(|job| !job.state.is_open()));
        assert!(state.actors().iter().all(|actor| actor.state == ActorState::Dead));
        assert!(state.workers().iter().all(|worker| worker.state == WorkerState::Dead));
        assert!(self.open.is_empty(), "{:?} were never answered", self.open);
        let mut left =
            self.durable.keys().filter(|key| !matches!(key, RecordKey::Job(_) | RecordKey::IdWatermarks));
        assert_eq!(left.next(), None);
        let shapes = state.history.actors.iter().map(|past| past.actor.shape);
        assert_eq!(state.schedule.shapes(), shapes.collect::<BTreeSet<_>>().len());
    }
}
