//! What holds after every event, and when nobody is heard of any more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::actor::Phase;
use super::super::super::placement::NameWaiter;
use super::*;
use crate::cluster::control_plane::scheduler::Queue;
use crate::cluster::model::WorkerState;

impl World {
    pub(super) fn check(&mut self) {
        self.check_resources();
        self.check_questions();
        self.check_names();
        self.check_actors();
        self.check_workers();
        self.check_jobs();
        self.check_queues();
    }

    /// Of every resource so much is taken as the actors hold, and never more than there is.
    fn check_resources(&self) {
        let state = &self.lab.state;
        let mut held: BTreeMap<NodeId, u64> = BTreeMap::new();
        for actor in state.actors().into_iter().filter(|actor| actor.state != ActorState::Dead) {
            let cpus = actor.resources.0.get(Resources::CPU).map_or(0, |cpus| cpus.0);
            actor.node_id.into_iter().for_each(|node| *held.entry(node).or_default() += cpus);
        }
        for node in state.nodes().into_iter().filter(|node| node.state != NodeState::Dead) {
            let [total, free] = [&node.resources, &node.available].map(|it| it.0[Resources::CPU].0);
            let held = held.remove(&node.node_id).unwrap_or_default();
            assert!(held <= total, "{held} of {total} are held of {}", node.node_id);
            assert_eq!(free, total - held, "of {}", node.node_id);
        }
        assert!(held.is_empty(), "resources are held of nodes that are not there: {held:?}");
    }

    /// Whoever has no answer still waits.
    fn check_questions(&self) {
        let state = &self.lab.state;
        let mut asked: Vec<Ticket> = state.open_requests.keys().copied().collect();
        asked.sort_unstable();
        assert_eq!(asked, self.open.iter().copied().collect::<Vec<_>>());
        let unplaced = state.actors.values().filter(|actor| actor.phase.is_unplaced()).count();
        assert_eq!((state.pending.len(), state.waiting(usize::MAX).len()), (unplaced, unplaced));
        assert!(state.waiting(usize::MAX).iter().all(|waiting| !waiting.reason.is_empty()));
        let following: usize = state.jobs.values().map(|job| job.waiting_tickets.len()).sum();
        let followers = state.actors.values().filter_map(|actor| actor.named.as_ref());
        let followers = followers.flat_map(|named| named.followers.values());
        let finds = followers.clone().filter(|it| matches!(it, NameWaiter::Find { .. }));
        assert_eq!(following + finds.count(), followers.clone().count());
        assert_eq!(asked.len(), unplaced + followers.count());
    }

    /// A name has one owner, which is not dead, and whoever has a name owns it.
    fn check_names(&self) {
        let state = &self.lab.state;
        let named = state.actors.iter().filter_map(|(key, actor)| Some((key, actor.named.as_ref()?)));
        let mut count = 0;
        for (key, named) in named {
            assert_eq!(state.names.owner(&named.namespace, &named.name), Some(*key));
            count += 1;
        }
        assert_eq!(state.names.all().count(), count);
    }

    /// An actor waits, lives, and is dead, in that order; and those of a job that is over are.
    fn check_actors(&mut self) {
        let state = &self.lab.state;
        for actor in state.actors() {
            let before = self.states.insert(actor.actor_id, actor.state);
            let legal = match (before, actor.state) {
                (None | Some(ActorState::PendingCreation), _) => true,
                (Some(ActorState::Alive), ActorState::Alive | ActorState::Dead) => true,
                // It has not been heard of since the head was away.
                (Some(ActorState::Alive), ActorState::PendingCreation) => self.restarted,
                (Some(before), now) => before == now,
            };
            assert!(legal, "{} was {before:?} and is {:?}", actor.actor_id, actor.state);
            assert!(actor.state == ActorState::Alive || actor.cause.is_some());
        }
        assert!(state.stopping.iter().all(|key| state.actors.contains_key(key)));
        for (key, actor) in &state.actors {
            let open = state.is_served(actor.job);
            let may_live = actor.detached && matches!(actor.phase, Phase::Alive(..) | Phase::Unaccounted);
            assert!(open || may_live || state.may_still_start(*key), "{key} outlives its job");
            let loose = state.jobs.get(&actor.job).is_some_and(|job| job.unassigned_actors.contains(key));
            let in_pool = !actor.detached && actor.phase.worker().is_some();
            assert_eq!(loose, open && !in_pool && !may_live, "{key}");
            assert_eq!(state.unaccounted.contains(key), actor.phase == Phase::Unaccounted);
            let may_run = matches!(actor.phase, Phase::Assigned(_) | Phase::Alive(..));
            assert!(!state.stopping.contains(key) || may_run);
        }
    }

    /// Workers are where they are believed to be, with the actors that are believed to be in them.
    fn check_workers(&self) {
        let state = &self.lab.state;
        let mut placed = 0;
        for (id, worker) in &state.workers {
            let node = &state.nodes[&worker.node];
            let own = worker.detached.is_none_or(|actor| state.actors.contains_key(&actor));
            assert!(own, "worker {id} runs for an actor that is no more");
            assert!(node.workers.contains(id));
            let pool = state.jobs.get(&worker.job).and_then(|job| job.pools.get(&worker.node));
            let in_pool = pool.is_some_and(|pool| pool.workers.contains(id));
            assert_eq!(in_pool, worker.detached.is_none());
            let living =
                worker.actors.iter().filter(|key| matches!(state.actors[*key].phase, Phase::Alive(..)));
            assert_eq!(living.count(), worker.alive_actors);
            for (at, key) in worker.actors.iter().enumerate() {
                let actor = &state.actors[key];
                assert_eq!((actor.index_in_worker as usize, actor.phase.worker()), (at, Some(*id)));
                assert_eq!(actor.job, worker.job);
            }
            placed += worker.actors.len();
            if let Some(member) = worker.member {
                assert_eq!(state.worker_of(member.actors), Some(*id));
            }
        }
        assert_eq!(placed, state.actors.values().filter(|actor| actor.phase.worker().is_some()).count());
        let own = state.workers.iter().filter_map(|(id, worker)| Some((worker.detached?, *id)));
        assert_eq!(
            own.collect::<BTreeMap<_, _>>(),
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
                        .all(|key| state.actors[key].phase == Phase::AwaitingWorker(*node))
                );
            }
        }
    }

    /// Nodes that are heard of keep nothing, and run no driver, for jobs that are over; a job whose driver
    /// nobody runs has a lease; and workers that are not there are started some time.
    fn check_jobs(&self) {
        let state = &self.lab.state;
        for (id, node) in &state.nodes {
            assert!(node.pinned_jobs.iter().all(|job| state.open_jobs.contains(job)));
            let real = self.nodes.get(&id.0).filter(|real| real.linked && state.is_member(real.facts.agent));
            let Some(real) = real else { continue };
            assert_eq!(node.pinned_jobs, real.held, "node {id} holds more or less than is believed");
            assert!(real.drivers.iter().all(|job| state.open_jobs.contains(job)));
        }
        for (key, actor) in &state.actors {
            let orphan = state.may_still_start(*key) && !state.is_served(actor.job);
            assert_eq!(state.start_leases.has(*key), orphan, "{key} waits for ever, or is given up");
        }
        let mut rests = 0;
        for (id, job) in &state.jobs {
            let has = (state.job_leases.has(*id), state.submitted_leases.has(*id));
            match (job.state.is_open(), job.facts.driver) {
                (true, Some(_)) => assert_eq!(has, (true, false)),
                (true, None) => assert!(!has.0 && (has.1 || self.runs_driver(*id)), "{id} waits for ever"),
                (false, _) => assert_eq!(has, (false, false)),
            }
            for (node, pool) in &job.pools {
                let next = pool.crash_loop.next_start();
                assert!(next.is_none_or(|at| state.restarts.contains(&(at, *id, *node))));
                rests += usize::from(next.is_some());
                let goes_on = state.nodes[node].state == NodeState::Alive && pool.blocked.is_none();
                assert!(!goes_on || next.is_some() || !pool.workers.is_empty(), "nothing is started");
            }
        }
        assert_eq!(state.restarts.len(), rests);
    }

    fn runs_driver(&self, job: JobId) -> bool {
        self.nodes.values().any(|real| real.drivers.contains(&job))
    }

    /// Whoever waits could be placed on some node, and on none of them now.
    fn check_queues(&self) {
        let state = &self.lab.state;
        let mut waiting = 0;
        for (queue, actors) in state.waiting.queues() {
            assert!(state.schedule.is_feasible(queue.1), "{actors:?} wait in vain");
            let fits = state.nodes.keys().find(|node| state.schedule.fits(**node, queue));
            assert_eq!(fits, None, "{actors:?} wait, and there is room");
            waiting += actors.len();
        }
        assert_eq!(waiting, state.actors.values().filter(|actor| actor.phase == Phase::Waiting).count());
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

    /// What is held of the nodes that are reserved, with what they are reserved for.
    pub(super) fn held_of_reserved(&self) -> BTreeMap<NodeId, (Queue, u64)> {
        let state = &self.lab.state;
        let held = |node: NodeId| {
            let total = state.nodes[&node].facts.resources.0[Resources::CPU].0;
            total - state.schedule.available(node).0[Resources::CPU].0
        };
        state.waiting.reservations().map(|(node, queue)| (node, (queue, held(node)))).collect()
    }

    /// Nobody is heard of any more: every lease ends, and with them all the rest. Nodes are heard of for
    /// longer than those who start jobs.
    pub(super) fn abandon(&mut self) {
        self.step(&Step::DiskFrees);
        for _ in 0..40 {
            self.lab.now += 1000;
            self.beat_nodes();
            self.event(Event::Tick);
            self.check();
        }
        assert!(self.lab.state.open_jobs.iter().all(|job| self.runs_driver(*job)));
        for _ in 0..30 {
            self.lab.now += 1000;
            self.event(Event::Tick);
            self.check();
        }
        let state = &self.lab.state;
        assert_eq!(state.next_deadline(), None);
        assert!(state.nodes().iter().all(|node| node.state == NodeState::Dead));
        assert!(state.jobs().iter().all(|job| !job.state.is_open()));
        assert!(state.actors().iter().all(|actor| actor.state == ActorState::Dead));
        assert!(state.workers().iter().all(|worker| worker.state == WorkerState::Dead));
        assert!(self.open.is_empty(), "{:?} were never answered", self.open);
        let mut left =
            self.kept.keys().filter(|key| !matches!(key, RecordKey::Job(_) | RecordKey::IdWatermarks));
        assert_eq!(left.next(), None);
        let shapes = state.history.actors.iter().map(|past| past.actor.shape);
        assert_eq!(state.schedule.shapes(), shapes.collect::<BTreeSet<_>>().len());
    }
}
