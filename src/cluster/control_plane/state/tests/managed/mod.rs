//! Tests of actors with a restart policy.

mod exclusive;
mod holders;
mod memory;
mod place;
mod rejoin;
mod report;

use super::*;
use crate::config::{RECIPES_PER_JOB_BYTES_MAX, RESTART_FAILURES_COUNTED_MAX};

const SECOND: Duration = Duration::from_secs(1);

/// Policy with a back-off of 100 ms, which doubles up to 300 ms.
fn at_most(failures: u32) -> Restart {
    let backoff = Duration::from_millis(100)..Duration::from_millis(300);
    Restart::on_failure().at_most(failures).within(10 * SECOND).backoff(backoff)
}

fn restartable(policy: Restart, spec: ActorSpec) -> ActorSpec {
    ActorSpec { restart: Some(policy), ..spec }
}

/// Report of the end of an incarnation.
fn incarnation_ended(actor: ActorKey, incarnation: u32, reason: EndReason, text: &str) -> ControlEvent {
    ControlEvent::ActorEnded {
        actor,
        incarnation: ActorIncarnation(incarnation),
        end: End::new(reason, text),
    }
}

/// Commands to create incarnations: their workers and numbers.
fn starts(actions: &[Action]) -> Vec<(WorkerId, u32)> {
    let starts = actions.iter().filter_map(|action| match action {
        Action::StartActor { worker, actor, at, .. } => {
            assert_eq!(*at, managed_location(*worker, *actor, at.target.incarnation.0));
            Some((*worker, at.target.incarnation.0))
        }
        _ => None,
    });
    starts.collect()
}

/// Commands to stop incarnations: their workers and numbers.
fn stops(actions: &[Action]) -> Vec<(WorkerId, u32)> {
    let stops = actions.iter().filter_map(|action| match action {
        Action::StopActor { worker, at, .. } | Action::StopIncarnation { worker, at, .. } => {
            Some((*worker, at.target.incarnation.0))
        }
        _ => None,
    });
    stops.collect()
}

impl Harness {
    fn place_managed(&mut self, job: JobId, spec: ActorSpec) -> IssuedRequest {
        self.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe: Some(recipe(10)), id: None })
    }

    /// Places an actor that is assigned immediately; its first incarnation is not created yet.
    #[track_caller]
    fn start_managed(&mut self, job: JobId, spec: ActorSpec) -> (Ticket, ActorKey, WorkerId) {
        let request = self.place_managed(job, spec);
        let ticket = request.expect_pending();
        let started = request.actions.iter().find_map(|action| match action {
            Action::StartActor { actor, worker, .. } => Some((*actor, *worker)),
            _ => None,
        });
        let (actor, worker) = started.unwrap();
        (ticket, actor, worker)
    }

    #[track_caller]
    fn spawn_managed(&mut self, job: JobId, spec: ActorSpec) -> (ActorKey, WorkerId) {
        let (ticket, actor, worker) = self.start_managed(job, spec);
        let mut actions = self.created(actor, worker, 0);
        assert!(matches!(take_reply(&mut actions, ticket), Some(Ok(ControlReply::Created { .. }))));
        (actor, worker)
    }

    fn created(&mut self, actor: ActorKey, worker: WorkerId, incarnation: u32) -> Vec<Action> {
        let at = managed_location(worker, actor, incarnation);
        self.handle(ControlEvent::ActorStarted { actor, worker, at })
    }

    fn panics(&mut self, actor: ActorKey, incarnation: u32) -> Vec<Action> {
        self.handle(incarnation_ended(actor, incarnation, EndReason::Panicked, "boom"))
    }

    fn after(&mut self, ms: u64) -> Vec<Action> {
        self.now += ms;
        self.handle(ControlEvent::Tick)
    }

    fn locate(&mut self, actor: ActorKey, gone: Option<u32>) -> IssuedRequest {
        let gone = gone.map(ActorIncarnation);
        self.ask(|ticket| ControlEvent::Locate { ticket, actor, gone })
    }

    fn kill(&mut self, actor: ActorKey) -> Vec<Action> {
        let request = self.ask(|ticket| ControlEvent::Kill { ticket, actor });
        assert_eq!(request.reply, Some(Ok(ControlReply::Done)));
        request.actions
    }

    /// Checks that nothing is left of a managed actor but its row in the history.
    #[track_caller]
    fn expect_gone(&mut self, actor: ActorKey, reason: EndReason, text: &str) {
        self.expect_dead(actor, text);
        let end = End::new(reason, text);
        assert_eq!(self.locate(actor, None).reply, Some(Ok(ControlReply::Gone(end))));
        assert!(self.state.managed.is_empty() && self.state.backing_off.is_empty());
        assert_eq!(self.state.next_restart(), None);
        assert!(self.state.jobs.values().all(|job| job.recipe_bytes == 0));
    }

    #[track_caller]
    fn expect_found(&self, reply: Option<&Result<ControlReply, ControlError>>, actor: ActorKey, at: u32) {
        let worker = self.state.worker_of_actor(actor).unwrap();
        let found = ControlReply::Found {
            actor,
            class: "Plain".to_owned(),
            at: managed_location(worker, actor, at),
            member: member(worker),
        };
        assert_eq!(reply, Some(&Ok(found)));
    }
}

#[track_caller]
fn expect_deleted(actions: &[Action], actor: ActorKey) {
    for key in [RecordKey::Actor(actor), RecordKey::Recipe(actor)] {
        assert!(actions.contains(&Action::Delete(key)), "{actions:?}");
    }
}

#[test]
fn spawn_is_answered_once_the_actor_is_alive() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place_managed(job, restartable(at_most(1), plain()));
    let ticket = request.expect_pending();
    let [recipe_at, actor_at, start_at] = [
        request.actions.iter().position(|it| matches!(it, Action::Persist(Record::Recipe { .. }))),
        request.actions.iter().position(|it| matches!(it, Action::Persist(Record::Actor { .. }))),
        request.actions.iter().position(|it| matches!(it, Action::StartActor { .. })),
    ];
    assert!(recipe_at.is_some() && recipe_at < actor_at && actor_at < start_at, "{:?}", request.actions);
    let (worker, incarnation) = starts(&request.actions)[0];
    assert_eq!(incarnation, 0);
    let actor = *harness.state.managed.keys().next().unwrap();
    let mut actions = harness.created(actor, worker, 0);
    let at = managed_location(worker, actor, 0);
    let placed = ControlReply::Created { actor, at, member: member(worker) };
    assert_eq!(take_reply(&mut actions, ticket), Some(Ok(placed)));
    // The first location is no move.
    assert_eq!(driver_events(&actions), Vec::<&JobEvent>::new());
    assert!(harness.state.open_requests.is_empty());
}

#[test]
fn spawn_gets_the_error_of_the_first_constructor() {
    for reason in [EndReason::Refused, EndReason::Panicked] {
        let (mut harness, job) = Harness::with_nodes(1);
        let (ticket, actor, _) = harness.start_managed(job, restartable(at_most(5), named("a")));
        let mut actions = harness.handle(incarnation_ended(actor, 0, reason, "no licence"));
        let text = "no licence".to_owned();
        let error = match reason {
            EndReason::Refused => ControlError::Refused(text),
            _ => ControlError::Panicked(text),
        };
        assert_eq!(take_reply(&mut actions, ticket), Some(Err(error)));
        expect_deleted(&actions, actor);
        harness.expect_gone(actor, reason, "no licence");
        assert!(harness.state.names.all().next().is_none());
    }
}

#[test]
fn spawn_waits_while_its_worker_crashes_and_gets_the_error_of_the_next_constructor() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (ticket, actor, worker) = harness.start_managed(job, restartable(at_most(5), plain()));
    let mut actions = harness.ended(worker);
    assert_eq!(take_reply(&mut actions, ticket), None);
    let actions = harness.after(100);
    assert_eq!(starts(&actions)[0].1, 1);
    let mut actions = harness.handle(incarnation_ended(actor, 1, EndReason::Refused, "no licence"));
    let refused = ControlError::Refused("no licence".to_owned());
    assert_eq!(take_reply(&mut actions, ticket), Some(Err(refused)));
}

#[test]
fn spawn_is_refused_if_its_record_cannot_be_written_and_a_restart_waits() {
    let (mut harness, job) = Harness::with_nodes(1);
    let not_persisted = |actor, worker, incarnation| ControlEvent::StartNotPersisted {
        actor,
        at: managed_location(worker, actor, incarnation),
        why: "the disk is full".to_owned(),
    };
    let spec = restartable(at_most(3), cpus(1.0));
    let (ticket, refused, worker) = harness.start_managed(job, spec.clone());
    let mut actions = harness.handle(not_persisted(refused, worker, 0));
    let reply = take_reply(&mut actions, ticket);
    assert_eq!(reply, Some(Err(ControlError::NotPersisted("the disk is full".to_owned()))));
    harness.expect_dead(refused, "it was not created: the disk is full");
    assert_eq!(harness.free_cpus(1), 4.0);

    let (kept, worker) = harness.spawn_managed(job, spec);
    harness.panics(kept, 0);
    harness.after(100);
    assert_eq!(harness.handle(not_persisted(kept, worker, 1)), []);
    assert_eq!(harness.actor(kept).state, ActorState::Restarting);
}

#[test]
fn cancelled_spawn_leaves_nothing_and_a_late_start_is_stopped() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (ticket, actor, worker) = harness.start_managed(job, restartable(at_most(5), cpus(1.0)));
    let actions = harness.handle(ControlEvent::Cancelled { ticket });
    expect_deleted(&actions, actor);
    harness.expect_gone(actor, EndReason::Killed, "its request was cancelled");
    assert_eq!(harness.free_cpus(1), 4.0);
    assert_eq!(stops(&harness.created(actor, worker, 0)), [(worker, 0)]);
}

#[test]
fn panic_restarts_the_actor_after_a_back_off_that_doubles() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(4), cpus(4.0)));
    for (incarnation, delay_ms) in [(0, 100), (1, 200), (2, 300), (3, 300)] {
        let actions = harness.panics(actor, incarnation);
        assert_eq!(starts(&actions), []);
        // The next number is written before any process hears of it.
        let written = actions.iter().find_map(|action| match action {
            Action::Persist(Record::Actor { incarnation, .. }) => Some(incarnation.0),
            _ => None,
        });
        assert_eq!(written, Some(incarnation + 1));
        assert_eq!(harness.free_cpus(1), 4.0);
        assert_eq!(harness.reasons(), ["it restarts, since boom; its back-off ends within 1 s"]);
        assert_eq!(harness.state.next_restart(), Some(Millis(harness.now + delay_ms)));
        assert_eq!(harness.after(delay_ms - 1), []);
        let actions = harness.after(1);
        assert_eq!(starts(&actions), [(worker, incarnation + 1)]);
        assert_eq!(harness.free_cpus(1), 0.0);
        let actions = harness.created(actor, worker, incarnation + 1);
        let at = managed_location(worker, actor, incarnation + 1);
        assert_eq!(driver_events(&actions), [&JobEvent::ActorMoved { at, member: member(worker) }]);
        assert_eq!(harness.actor(actor).restarts, incarnation + 1);
    }
}

#[test]
fn refused_restart_counts_like_a_panic() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(2), plain()));
    harness.panics(actor, 0);
    assert_eq!(starts(&harness.after(100)), [(worker, 1)]);
    harness.handle(incarnation_ended(actor, 1, EndReason::Refused, "no licence"));
    assert_eq!(starts(&harness.after(200)), [(worker, 2)]);
    harness.handle(incarnation_ended(actor, 2, EndReason::Refused, "no licence"));
    let text = "no licence; it failed more than 2 times within 10s, after 2 restarts";
    harness.expect_gone(actor, EndReason::Refused, text);
}

#[test]
fn failures_older_than_the_period_are_forgotten() {
    for (period_ms, survives) in [(9_999, false), (10_000, true)] {
        let (mut harness, job) = Harness::with_nodes(1);
        let (actor, worker) = harness.spawn_managed(job, restartable(at_most(1), plain()));
        harness.panics(actor, 0);
        harness.after(100);
        harness.created(actor, worker, 1);
        harness.advance(9, &[agent(1, 1)], &[job]);
        harness.now += period_ms - 9_100;
        harness.panics(actor, 1);
        // The first failure of a new period has the shortest back-off.
        let expected = survives.then_some(Millis(harness.now + 100));
        assert_eq!(harness.state.next_restart(), expected);
    }
}

#[test]
fn one_failure_more_than_allowed_ends_the_actor_with_its_reason_and_the_counts() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(2), named("a")));
    for (incarnation, delay_ms) in [(0, 100), (1, 200)] {
        harness.panics(actor, incarnation);
        harness.after(delay_ms);
        harness.created(actor, worker, incarnation + 1);
    }
    let locator = harness.locate(actor, Some(2)).expect_pending();
    let mut actions = harness.panics(actor, 2);
    let text = "boom; it failed more than 2 times within 10s, after 2 restarts";
    let end = End::new(EndReason::Panicked, text);
    assert_eq!(take_reply(&mut actions, locator), Some(Ok(ControlReply::Gone(end))));
    expect_deleted(&actions, actor);
    harness.expect_gone(actor, EndReason::Panicked, text);
    assert_eq!(harness.after(1_000), []);
}

#[test]
fn policy_without_a_limit_takes_bounded_memory() {
    let policy = Restart::on_failure().at_most(u32::MAX).within(Duration::MAX);
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) =
        harness.spawn_managed(job, restartable(policy.backoff(Duration::ZERO..SECOND), plain()));
    for incarnation in 0..3_000 {
        assert_eq!(starts(&harness.panics(actor, incarnation)), [(worker, incarnation + 1)]);
        harness.created(actor, worker, incarnation + 1);
    }
    assert_eq!(harness.state.managed[&actor].failures.len(), RESTART_FAILURES_COUNTED_MAX);
}

#[test]
fn end_without_a_failure_is_final() {
    for reason in [EndReason::Stopped, EndReason::Killed, EndReason::Linked] {
        let (mut harness, job) = Harness::with_nodes(1);
        let (actor, _) = harness.spawn_managed(job, restartable(at_most(5), plain()));
        let actions = harness.handle(incarnation_ended(actor, 0, reason, "done"));
        expect_deleted(&actions, actor);
        harness.expect_gone(actor, reason, "done");
    }
}

#[test]
fn losses_from_outside_neither_count_nor_delay_the_restart() {
    let (mut harness, job) = Harness::with_nodes(3);
    let (actor, mut worker) = harness.spawn_managed(job, restartable(at_most(0), plain()));
    let mut incarnation = 0;
    let mut moves = |harness: &mut Harness, worker: &mut WorkerId, actions: &[Action]| {
        incarnation += 1;
        let [(next, number)] = starts(actions)[..] else { panic!("{actions:?}") };
        assert!(number == incarnation && next != *worker);
        *worker = next;
        harness.created(actor, next, incarnation);
    };
    for _ in 0..2 {
        let actions = harness.handle(worker_ended(worker, "killed by signal 9", true));
        moves(&mut harness, &mut worker, &actions);
        started(&actions).into_iter().for_each(|worker| drop(harness.ready(worker)));
    }
    let node = harness.node_of(worker);
    let actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(node) });
    // The node can be reached, so its incarnation is stopped.
    assert_eq!(stops(&actions), [(worker, 2)]);
    moves(&mut harness, &mut worker, &actions);
    let node = agent(harness.node_of(worker), 1);
    let actions = harness.handle(ControlEvent::NodeLeft { node, cause: "it left".to_owned() });
    moves(&mut harness, &mut worker, &actions);
    assert_eq!((harness.actor(actor).restarts, harness.actor(actor).state), (4, ActorState::Alive));
    // The first failure is still the first.
    harness.panics(actor, 4);
    let text = "boom; it failed more than 0 times within 10s, after 4 restarts";
    harness.expect_gone(actor, EndReason::Panicked, text);
}

#[test]
fn drain_moves_an_actor_whose_constructor_runs() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (ticket, actor, first) = harness.start_managed(job, restartable(at_most(0), plain()));
    let node = NodeId(harness.node_of(first));
    let actions = harness.handle(ControlEvent::NodeDrain { node });
    let (second, _) = starts(&actions)[0];
    assert!(starts(&actions) == [(second, 1)] && second != first);
    // Its constructor returns nevertheless.
    assert_eq!(stops(&harness.created(actor, first, 0)), [(first, 0)]);
    let mut actions = harness.created(actor, second, 1);
    let at = managed_location(second, actor, 1);
    let placed = ControlReply::Created { actor, at, member: member(second) };
    assert_eq!(take_reply(&mut actions, ticket), Some(Ok(placed)));
}

#[test]
fn crash_of_the_worker_is_a_failure_of_its_actors() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (strict, worker) = harness.spawn_managed(job, on(1, restartable(at_most(0), plain())));
    let (lenient, _) = harness.spawn_managed(job, on(1, restartable(at_most(1), plain())));
    harness.ended(worker);
    assert_eq!(harness.state.next_restart(), Some(Millis(harness.now + 100)));
    let text = "exit code 1; it failed more than 0 times within 10s, after 0 restarts";
    harness.expect_dead(strict, text);
    assert_eq!(harness.actor(lenient).state, ActorState::Restarting);
    assert_eq!(
        harness.actor(lenient).cause.as_deref(),
        Some("it restarts, since exit code 1; its back-off ends within 1 s")
    );
}

#[test]
fn killed_actor_is_not_restarted() {
    // The report of its end, and the end of its worker before that.
    for crashes in [false, true] {
        let (mut harness, job) = Harness::with_nodes(2);
        let (actor, worker) = harness.spawn_managed(job, restartable(at_most(5), plain()));
        let locator = harness.locate(actor, Some(0)).expect_pending();
        assert_eq!(stops(&harness.kill(actor)), [(worker, 0)]);
        let mut actions = match crashes {
            true => harness.ended(worker),
            false => harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was killed")),
        };
        assert!(matches!(take_reply(&mut actions, locator), Some(Ok(ControlReply::Gone(_)))));
        expect_deleted(&actions, actor);
        harness.expect_gone(actor, EndReason::Killed, "it was killed");
    }
}

#[test]
fn kill_takes_effect_while_the_actor_restarts() {
    let text = "it was killed while it restarted";
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(5), cpus(4.0)));
    harness.panics(actor, 0);
    let locator = harness.locate(actor, None).expect_pending();
    let mut actions = harness.kill(actor);
    let end = End::new(EndReason::Killed, text);
    assert_eq!(take_reply(&mut actions, locator), Some(Ok(ControlReply::Gone(end))));
    expect_deleted(&actions, actor);
    harness.expect_gone(actor, EndReason::Killed, text);
    assert_eq!(harness.after(1_000), []);

    // Without room.
    let (actor, _) = harness.spawn_managed(job, restartable(at_most(5), cpus(4.0)));
    harness.panics(actor, 0);
    let (other, _) = harness.spawn(job, cpus(1.0));
    assert_eq!(starts(&harness.after(100)), []);
    assert!(harness.reasons()[0].starts_with("it restarts, since boom; it wants cpu 4"));
    expect_deleted(&harness.kill(actor), actor);
    harness.expect_gone(actor, EndReason::Killed, text);

    // While the next constructor runs.
    harness.handle(actor_ended(other, ""));
    let (actor, _) = harness.spawn_managed(job, restartable(at_most(5), cpus(4.0)));
    harness.panics(actor, 0);
    assert_eq!(starts(&harness.after(100)), [(worker, 1)]);
    assert_eq!(stops(&harness.kill(actor)), []);
    assert_eq!(stops(&harness.created(actor, worker, 1)), [(worker, 1)]);
    harness.handle(incarnation_ended(actor, 1, EndReason::Panicked, "boom"));
    harness.expect_gone(actor, EndReason::Killed, "it was killed");
}

#[test]
fn kill_of_the_worker_ends_its_target_and_restarts_the_others() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, on(1, restartable(at_most(5), plain())));
    let (other, _) = harness.spawn_managed(job, restartable(at_most(0), on(1, plain())));
    assert_eq!(harness.state.worker_of_actor(other), Some(worker));
    let request = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor });
    assert_eq!(request.reply, Some(Ok(ControlReply::Done)));
    harness.expect_dead(actor, "it was killed");
    expect_deleted(&request.actions, actor);
    let replacement = started(&request.actions)[0];
    assert_eq!(starts(&harness.ready(replacement)), [(replacement, 1)]);
    assert_eq!(harness.state.worker_of_actor(other), Some(replacement));
}

#[test]
fn end_of_the_job_ends_its_actors_in_every_phase() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (alive, _) = harness.spawn_managed(job, restartable(at_most(5), plain()));
    let (backing_off, _) = harness.spawn_managed(job, restartable(at_most(5), plain()));
    let (waiting, _) = harness.spawn_managed(job, restartable(at_most(5), cpus(4.0)));
    harness.panics(waiting, 0);
    harness.spawn(job, cpus(1.0));
    harness.after(100);
    harness.panics(backing_off, 0);
    let (spawner, creating, worker) = harness.start_managed(job, restartable(at_most(5), plain()));
    let pending = harness.place_managed(job, restartable(at_most(5), cpus(4.0))).expect_pending();
    let locator = harness.locate(waiting, None).expect_pending();
    let mut actions = harness.end_job(job);
    let text = "its job has ended: done";
    for ticket in [spawner, pending] {
        let error = ControlError::JobEnded(text.to_owned());
        assert_eq!(take_reply(&mut actions, ticket), Some(Err(error)));
    }
    let end = End::new(EndReason::JobEnded, text);
    assert_eq!(take_reply(&mut actions, locator), Some(Ok(ControlReply::Gone(end))));
    for actor in [alive, backing_off, waiting, creating] {
        expect_deleted(&actions, actor);
        harness.expect_gone(actor, EndReason::JobEnded, text);
    }
    assert_eq!(harness.created(creating, worker, 0), []);
    assert_eq!(starts(&harness.after(1_000)), []);
}

#[test]
fn reports_of_other_incarnations_change_nothing() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, first) = harness.spawn_managed(job, restartable(at_most(1), plain()));
    let node = NodeId(harness.node_of(first));
    let actions = harness.handle(ControlEvent::NodeDrain { node });
    let [(second, 1)] = starts(&actions)[..] else { panic!("{actions:?}") };
    for created in [false, true] {
        if created {
            harness.created(actor, second, 1);
        }
        let before = harness.actor(actor);
        for reason in [EndReason::Stopped, EndReason::Panicked, EndReason::Killed] {
            assert_eq!(harness.handle(incarnation_ended(actor, 0, reason, "late")), []);
            assert_eq!(harness.handle(incarnation_ended(actor, 2, reason, "wrong")), []);
        }
        // One that lives is told to stop.
        assert_eq!(stops(&harness.created(actor, first, 0)), [(first, 0)]);
        assert_eq!(stops(&harness.created(actor, second, 2)), [(second, 2)]);
        assert_eq!(harness.actor(actor), before);
    }
    let found = harness.locate(actor, None);
    harness.expect_found(found.reply.as_ref(), actor, 1);
}

#[test]
fn locate_waits_for_an_incarnation_that_the_requester_does_not_know_to_be_gone() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, actor, worker) = harness.start_managed(job, restartable(at_most(5), plain()));
    let early = harness.locate(actor, None).expect_pending();
    let knows = harness.locate(actor, Some(0)).expect_pending();
    let mut actions = harness.created(actor, worker, 0);
    harness.expect_found(take_reply(&mut actions, early).as_ref(), actor, 0);
    assert_eq!(take_reply(&mut actions, knows), None);
    let found = harness.locate(actor, None);
    harness.expect_found(found.reply.as_ref(), actor, 0);

    let during = harness.locate(actor, Some(0)).expect_pending();
    let cancelled = harness.locate(actor, Some(0)).expect_pending();
    assert_eq!(harness.handle(ControlEvent::Cancelled { ticket: cancelled }), []);
    harness.panics(actor, 0);
    let backing_off = harness.locate(actor, None).expect_pending();
    harness.after(100);
    let assigned = harness.locate(actor, Some(0)).expect_pending();
    let mut actions = harness.created(actor, worker, 1);
    for ticket in [knows, during, backing_off, assigned] {
        harness.expect_found(take_reply(&mut actions, ticket).as_ref(), actor, 1);
        assert_eq!(take_reply(&mut actions, ticket), None);
    }
    assert_eq!(take_reply(&mut actions, cancelled), None);
    assert!(harness.state.open_requests.is_empty());
    let found = harness.locate(actor, Some(0));
    harness.expect_found(found.reply.as_ref(), actor, 1);

    harness.handle(incarnation_ended(actor, 1, EndReason::Stopped, "done"));
    harness.expect_gone(actor, EndReason::Stopped, "done");
    let end = End::new(EndReason::Unknown, "it ended long ago, or never existed");
    assert_eq!(harness.locate(ActorKey(999), None).reply, Some(Ok(ControlReply::Gone(end))));
}

#[test]
fn name_stays_owned_while_the_actor_restarts() {
    let (mut harness, job) = Harness::with_nodes(1);
    let spec = restartable(at_most(5), named("a"));
    let (actor, worker) = harness.spawn_managed(job, spec.clone());
    harness.panics(actor, 0);
    assert!(matches!(harness.place_managed(job, spec.clone()).reply, Some(Err(ControlError::NameTaken(_)))));
    let wanted = ActorSpec { get_if_exists: true, ..spec };
    let place = harness.place_managed(job, wanted).expect_pending();
    let find = |ticket| ControlEvent::Find { ticket, namespace: "own".to_owned(), name: "a".to_owned() };
    let find = harness.ask(find).expect_pending();
    harness.after(100);
    let mut actions = harness.created(actor, worker, 1);
    harness.expect_found(take_reply(&mut actions, find).as_ref(), actor, 1);
    let alive = Some(managed_location(worker, actor, 1));
    let placed = ControlReply::Placed { actor, member: member(worker), alive };
    assert_eq!(take_reply(&mut actions, place), Some(Ok(placed)));
}

#[test]
fn waiter_for_a_name_creates_the_actor_if_the_restarting_one_ends() {
    let (mut harness, job) = Harness::with_nodes(1);
    let spec = restartable(at_most(5), named("a"));
    let (actor, worker) = harness.spawn_managed(job, spec.clone());
    harness.panics(actor, 0);
    let place = harness.place_managed(job, ActorSpec { get_if_exists: true, ..spec }).expect_pending();
    let actions = harness.kill(actor);
    assert_eq!(starts(&actions), [(worker, 0)]);
    let next = ActorKey(actor.0 + 1);
    let mut actions = harness.created(next, worker, 0);
    assert!(matches!(take_reply(&mut actions, place), Some(Ok(ControlReply::Created { .. }))));
}

#[test]
fn restart_that_no_node_can_host_waits_for_one_that_joins() {
    let (mut harness, job) = Harness::with_nodes(1);
    harness.join(node_descriptor(2, 8.0, 1));
    harness.provision_and_start(job, 2);
    let (actor, _) = harness.spawn_managed(job, restartable(at_most(0), cpus(6.0)));
    harness.handle(ControlEvent::NodeLeft { node: agent(2, 1), cause: "it left".to_owned() });
    let why = "it restarts, since node lost: it left; no node could ever take it: it wants cpu 6, and the most \
               that one node has is cpu 4; single nodes have up to cpu 4";
    assert_eq!(harness.reasons(), [why]);
    // A new request for the same is refused.
    let request = harness.place_managed(job, restartable(at_most(0), cpus(6.0)));
    assert!(matches!(request.reply, Some(Err(ControlError::Infeasible(_)))));
    harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: "it left".to_owned() });
    let why = "it restarts, since node lost: it left; no node of the cluster takes work: start a node with at least \
               one worker";
    assert_eq!(harness.reasons(), [why]);
    harness.advance(60, &[], &[job]);
    harness.join(node_descriptor(3, 8.0, 1));
    let worker = harness.provision(job, 3)[0];
    assert_eq!(
        harness.reasons(),
        [
            "it restarts, since node lost: it left; workers of its job are being started on node 0000000000000003"
        ]
    );
    assert_eq!(starts(&harness.ready(worker)), [(worker, 1)]);
    harness.created(actor, worker, 1);
    assert_eq!(harness.free_cpus(3), 2.0);
}

#[test]
fn recipes_are_limited_for_each_actor_and_each_job() {
    let (mut harness, job) = Harness::with_nodes(1);
    let place = |harness: &mut Harness, job, recipe: &Arc<Recipe>| {
        let (spec, recipe) = (restartable(at_most(0), plain()), Some(Arc::clone(recipe)));
        harness.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe, id: None })
    };
    let is_refused = |request: &IssuedRequest, part: &str| match &request.reply {
        Some(Err(ControlError::Infeasible(text))) => text.contains(part),
        _ => false,
    };
    let too_large = place(&mut harness, job, &recipe(RECIPE_BYTES_MAX));
    assert!(is_refused(&too_large, "at most 1048576 are allowed"), "{too_large:?}");
    let large = recipe(RECIPE_BYTES_MAX - 100);
    for _ in 0..RECIPES_PER_JOB_BYTES_MAX / large.len() {
        place(&mut harness, job, &large).expect_pending();
    }
    let refused = place(&mut harness, job, &large);
    assert!(is_refused(&refused, "exceed the limit of 67108864"), "{refused:?}");
    assert_eq!(refused.actions, []);
    let other = harness.start_job();
    place(&mut harness, other, &large).expect_pending();
    // The end of an actor makes room for another one.
    let first = *harness.state.managed.keys().min().unwrap();
    harness.handle(incarnation_ended(first, 0, EndReason::Refused, "no licence"));
    place(&mut harness, job, &large).expect_pending();
    assert!(is_refused(&place(&mut harness, job, &large), "exceed the limit"));
    harness.end_job(job);
    harness.end_job(other);
    assert!(harness.state.jobs.values().all(|job| job.recipe_bytes == 0));
}

#[test]
fn recipes_of_requests_that_wait_for_a_name_count_against_the_limit_of_their_job() {
    let (mut harness, job) = Harness::with_nodes(1);
    let large = recipe(RECIPE_BYTES_MAX - 100);
    let place = |harness: &mut Harness| {
        let spec = ActorSpec { get_if_exists: true, ..restartable(at_most(0), named("a")) };
        let recipe = Some(Arc::clone(&large));
        harness.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe, id: None })
    };
    let tickets: Vec<_> =
        (0..RECIPES_PER_JOB_BYTES_MAX / large.len()).map(|_| place(&mut harness).expect_pending()).collect();
    let refused = place(&mut harness).reply;
    assert!(
        matches!(&refused, Some(Err(ControlError::Infeasible(text))) if text.contains("exceed the limit"))
    );
    // One that waits no longer makes room for another one.
    harness.handle(ControlEvent::Cancelled { ticket: tickets[1] });
    place(&mut harness).expect_pending();
    let owner = *harness.state.managed.keys().next().unwrap();
    let worker = harness.state.worker_of_actor(owner).unwrap();
    harness.created(owner, worker, 0);
    assert_eq!(harness.state.jobs[&job].recipe_bytes, large.len());
}

#[test]
fn policy_and_recipe_go_together_and_exclude_a_detached_lifetime() {
    let (mut harness, job) = Harness::with_nodes(1);
    let text = "a restart policy and a recipe go together";
    harness.place(job, restartable(at_most(1), plain())).expect_error(ControlError::Infeasible, text);
    harness.place_managed(job, plain()).expect_error(ControlError::Infeasible, text);
    let text = "an actor that outlives its job cannot be restarted: the job's executable is gone by then";
    let both = detached(restartable(at_most(1), plain()));
    harness.place_managed(job, both).expect_error(ControlError::Infeasible, text);
    assert_eq!((harness.state.actors.len(), harness.state.managed.len()), (0, 0));
}
