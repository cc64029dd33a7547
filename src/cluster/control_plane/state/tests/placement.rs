//! Tests of placement: assignment, waiting and refusal.

use super::*;

#[test]
fn alive_actor_of_a_cancelled_spawn_is_stopped_and_holds_its_resources_until_it_ends() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) });
    let cancelled =
        || ControlEvent::SpawnCancelled { actor, cause: "its caller waited no longer".to_owned() };
    let stop = Action::StopActor { node: NodeId(1), worker, actor, at: location(worker, actor) };
    let actions = harness.handle(cancelled());
    assert_eq!((killed_records(&actions), actions.last()), (vec![actor], Some(&stop)));
    assert_eq!(harness.free_cpus(1), 0.0);
    assert!(matches!(harness.place(job, named("a")).reply, Some(Err(ControlError::NameTaken(_)))));
    harness.handle(actor_ended(actor, "it was stopped"));
    assert_eq!(harness.free_cpus(1), 4.0);
    harness.spawn(job, named("a"));
}
use crate::cluster::model::Strategy;

#[test]
fn actor_is_assigned_to_a_ready_worker_and_holds_resources_until_it_ends() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place(job, cpus(1.5));
    let actor = request.expect_placed();
    assert_eq!(harness.actor(actor).state, ActorState::PendingCreation);
    assert_eq!(harness.free_cpus(1), 2.5);
    let worker = harness.create(actor);
    let info = harness.actor(actor);
    assert_eq!((info.state, info.worker_id, info.pid), (ActorState::Alive, Some(worker), Some(7)));
    assert_eq!(info.resources, Resources::none().with(Resources::CPU, 1.5));
    harness.handle(actor_ended(actor, "it stopped"));
    harness.expect_dead(actor, "it stopped");
    assert_eq!(harness.free_cpus(1), 4.0);
}

#[test]
fn spread_alternates_between_nodes_and_pack_fills_them() {
    let (mut harness, job) = Harness::with_nodes(3);
    let mut nodes = |spec: ActorSpec| {
        [(); 4].map(|()| {
            let (_, worker) = harness.spawn(job, spec.clone());
            harness.node_of(worker)
        })
    };
    assert_eq!(nodes(plain()), [1, 2, 3, 1]);
    assert_eq!(nodes(ActorSpec { strategy: Strategy::Pack, ..cpus(2.0) }), [1, 1, 2, 2]);
}

#[test]
fn actor_is_assigned_to_the_least_busy_worker() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 3));
    let job = harness.start_job();
    let workers = harness.provision_and_start(job, 1);
    let spawned: Vec<_> = (0..3).map(|_| harness.spawn(job, plain())).collect();
    let mut used: Vec<_> = spawned.iter().map(|(_, worker)| *worker).collect();
    used.sort_unstable();
    assert_eq!(used, workers);
    let (actor, worker) = spawned[1];
    harness.handle(actor_ended(actor, ""));
    assert_eq!(harness.spawn(job, plain()).1, worker);
}

#[test]
fn infeasible_request_is_refused_immediately() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.place(job, cpus(5.0)).expect_error(
        ControlError::Infeasible,
        "no node could ever take it: it wants cpu 5, and the most that one node has is cpu 4; \
         single nodes have up to cpu 4",
    );
    harness
        .place(job, on(9, plain()))
        .expect_error(ControlError::Infeasible, "there is no node 0000000000000009 in the cluster");
    let long = "x".repeat(513);
    harness
        .place(job, named(&long))
        .expect_error(ControlError::Infeasible, "a name of 513 bytes is too long: at most 512 are allowed");
    assert_eq!(harness.state.waiting(usize::MAX), []);
}

#[test]
fn actors_wait_for_room_in_request_order() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (first, _) = harness.spawn(job, cpus(3.0));
    let waiting =
        [harness.place(job, cpus(2.0)).expect_pending(), harness.place(job, cpus(2.0)).expect_pending()];
    let small = harness.place(job, cpus(1.0)).expect_placed();
    let reason = "it wants cpu 2, and the most that one node has free is cpu 0";
    assert_eq!(harness.reasons(), [reason, reason]);
    harness.handle(actor_ended(small, ""));
    let mut actions = harness.handle(actor_ended(first, ""));
    let placed = waiting.map(|ticket| take_placed(&mut actions, ticket));
    assert!(placed[0] < placed[1]);
    assert_eq!(harness.free_cpus(1), 0.0);
}

#[test]
fn actor_does_not_pass_others_with_the_same_shape() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.spawn(job, on(1, cpus(3.0)));
    harness.place(job, on(1, cpus(2.0))).expect_pending();
    harness.place(job, on(1, cpus(2.0))).expect_pending();
    let other = harness.place(job, cpus(2.0)).expect_placed();
    let worker = harness.create(other);
    assert_eq!(harness.node_of(worker), 2);
}

#[test]
fn cancelled_pending_request_leaves_nothing_behind() {
    let (mut harness, job) = Harness::with_nodes(1);
    harness.spawn(job, cpus(4.0));
    let ticket = harness.place(job, named("a")).expect_placed();
    let pending = harness.place(job, ActorSpec { name: Some("b".to_owned()), ..cpus(1.0) }).expect_pending();
    assert_eq!(harness.handle(ControlEvent::Cancelled { ticket: pending }), []);
    assert_eq!(harness.state.waiting(usize::MAX), []);
    assert_eq!(harness.actor(ticket).name.as_deref(), Some("a"));
    // The id of the cancelled actor is not used again.
    assert_eq!(harness.place(job, named("b")).expect_placed(), ActorKey(ticket.0 + 2));
}

#[test]
fn actors_wait_for_workers_and_are_shared_among_them() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 2));
    let job = harness.start_job();
    let waiting = [(); 4].map(|()| harness.place(job, cpus(1.0)).expect_pending());
    assert_eq!(harness.reasons()[0], "no node runs workers of the job yet");
    let workers = harness.provision(job, 1);
    assert_eq!(workers.len(), 2);
    assert_eq!(harness.free_cpus(1), 0.0);
    assert_eq!(harness.reasons()[0], "workers of its job are being started on node 0000000000000001");
    // The first ready worker takes its half only, although the second one may never be ready.
    let mut actions = harness.ready(workers[0]);
    for ticket in &waiting[..2] {
        take_placed(&mut actions, *ticket);
    }
    let mut actions = harness.ready(workers[1]);
    for ticket in &waiting[2..] {
        take_placed(&mut actions, *ticket);
    }
    let actors = harness.state.actors();
    let on = |worker| actors.iter().filter(|actor| actor.worker_id == Some(worker)).count();
    assert_eq!([on(workers[0]), on(workers[1])], [2, 2]);
}

#[test]
fn node_without_workers_accepts_no_actors() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 0));
    let job = harness.start_job();
    assert_eq!(harness.provision(job, 1), []);
    let why = "no node of the cluster takes work: start a node with at least one worker";
    harness.place(job, plain()).expect_error(ControlError::Infeasible, why);
    let why = "node 0000000000000001 takes no work: start a node with at least one worker";
    harness.place(job, on(1, plain())).expect_error(ControlError::Infeasible, why);
}

#[test]
fn pending_request_fails_with_the_last_feasible_node() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.spawn(job, on(1, cpus(4.0)));
    harness.spawn(job, on(2, cpus(4.0)));
    let any = harness.place(job, cpus(1.0)).expect_pending();
    let only = harness.place(job, on(1, cpus(1.0))).expect_pending();
    let mut actions =
        harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: "it was stopped".to_owned() });
    let denied = take_reply(&mut actions, only);
    assert_eq!(
        denied,
        Some(Err(ControlError::Infeasible("node 0000000000000001 is dead: it was stopped".to_owned())))
    );
    assert_eq!(take_reply(&mut actions, any), None);
    let mut actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(2) });
    let why = "no node of the cluster takes work: start a node with at least one worker";
    assert_eq!(take_reply(&mut actions, any), Some(Err(ControlError::Infeasible(why.to_owned()))));
}

#[test]
fn detached_actor_has_a_dedicated_worker_until_it_ends() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place(job, detached(cpus(1.0)));
    let ticket = request.expect_pending();
    let dedicated = started(&request.actions)[0];
    assert_eq!(harness.free_cpus(1), 3.0);
    assert_eq!(harness.reasons(), [format!("worker {dedicated} is being started for it")]);
    let mut actions = harness.ready(dedicated);
    let actor = take_placed(&mut actions, ticket);
    assert_eq!(harness.create(actor), dedicated);
    harness.end_job(job);
    assert_eq!(harness.actor(actor).state, ActorState::Alive);
    let actions = harness.handle(actor_ended(actor, "it stopped"));
    assert_eq!(stopped(&actions), [dedicated]);
    assert_eq!(harness.free_cpus(1), 4.0);
}

#[test]
fn detached_actor_may_be_created_for_a_limited_time_after_its_job() {
    let (mut harness, job) = Harness::with_nodes(1);
    let mut place = || {
        let request = harness.place(job, detached(cpus(1.0)));
        let dedicated = started(&request.actions)[0];
        (dedicated, take_placed(&mut harness.ready(dedicated), request.ticket))
    };
    let [(early, created), (late, never_created)] = [place(), place()];
    let stopped_with_job = stopped(&harness.end_job(job));
    assert!(!stopped_with_job.contains(&early) && !stopped_with_job.contains(&late));
    assert_eq!(harness.create(created), early);
    let actions = harness.advance(11, &[agent(1, 1)], &[]);
    assert_eq!(harness.actor(created).state, ActorState::Alive);
    assert_eq!(stopped(&actions), [late]);
    harness.expect_dead(never_created, "it was not created within 10 s of the end of its job");
    assert_eq!(harness.free_cpus(1), 3.0);
}

#[test]
fn detached_actor_fails_after_several_failed_worker_starts() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place(job, detached(plain()));
    let mut dedicated = started(&request.actions)[0];
    for _ in 0..2 {
        dedicated = started(&harness.ended(dedicated))[0];
    }
    let mut actions = harness.ended(dedicated);
    let why = "its dedicated worker failed to start 3 times: exit code 1";
    assert_eq!(take_reply(&mut actions, request.ticket), Some(Err(ControlError::Infeasible(why.to_owned()))));
    assert_eq!(started(&actions), []);
}

#[test]
fn kill_cancels_pending_actors_and_stops_alive_ones() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (alive, worker) = harness.spawn(job, cpus(4.0));
    let pending = harness.place(job, cpus(1.0)).expect_pending();
    let key = ActorKey(alive.0 + 1);
    let mut killed = harness.ask(|ticket| ControlEvent::Kill { ticket, actor: key });
    let why = "it was killed before it was created".to_owned();
    assert_eq!(take_reply(&mut killed.actions, pending), Some(Err(ControlError::Unknown(why))));
    assert_eq!(killed.reply, Some(Ok(ControlReply::Done)));

    let killed = harness.ask(|ticket| ControlEvent::Kill { ticket, actor: alive });
    assert_eq!(killed.reply, Some(Ok(ControlReply::Done)));
    let at = location(worker, alive);
    let stop = Action::StopActor { node: NodeId(1), worker, actor: alive, at };
    // The record first: a restarted head stops it again.
    assert_eq!((killed_records(&killed.actions), killed.actions.last()), (vec![alive], Some(&stop)));
    assert_eq!(harness.actor(alive).state, ActorState::Alive);
    harness.handle(actor_ended(alive, "it was killed"));
    harness.expect_dead(alive, "it was killed");

    let again = harness.ask(|ticket| ControlEvent::Kill { ticket, actor: alive });
    assert_eq!(again.reply, Some(Ok(ControlReply::Done)));
    let unknown = harness.ask(|ticket| ControlEvent::Kill { ticket, actor: ActorKey(99) });
    unknown.expect_error(ControlError::Unknown, "there is no actor 0000000000000063, or it ended long ago");
}

#[test]
fn killing_the_worker_of_a_stuck_actor_starts_a_replacement() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (blocked, worker) = harness.spawn(job, cpus(1.0));
    harness.ask(|ticket| ControlEvent::Kill { ticket, actor: blocked });
    assert_eq!(harness.actor(blocked).state, ActorState::Alive);
    let forced = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor: blocked });
    assert_eq!(forced.reply, Some(Ok(ControlReply::Done)));
    assert_eq!(stopped(&forced.actions), [worker]);
    assert_eq!(started(&forced.actions).len(), 1);
    harness.expect_dead(blocked, &format!("it was killed to end the actor {blocked}"));
    assert_eq!(harness.free_cpus(1), 4.0);
    // The report of the worker's end has no further effect.
    assert_eq!(started(&harness.ended(worker)), []);

    let again = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor: blocked });
    assert_eq!((again.reply, stopped(&again.actions)), (Some(Ok(ControlReply::Done)), Vec::new()));
    let unknown = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor: ActorKey(99) });
    unknown.expect_error(ControlError::Unknown, "there is no actor 0000000000000063, or it ended long ago");
}

#[test]
fn killing_a_dedicated_worker_starts_no_replacement() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place(job, detached(plain()));
    let dedicated = started(&request.actions)[0];
    let actor = harness.state.actors().last().unwrap().actor_id;
    // Its dedicated worker is starting.
    let starting = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor });
    assert_eq!((stopped(&starting.actions), started(&starting.actions)), (vec![dedicated], Vec::new()));
    harness.expect_dead(actor, "it was killed before it was created");

    let request = harness.place(job, detached(plain()));
    let dedicated = started(&request.actions)[0];
    let actor = take_placed(&mut harness.ready(dedicated), request.ticket);
    harness.create(actor);
    let forced = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor });
    assert_eq!((stopped(&forced.actions), started(&forced.actions)), (vec![dedicated], Vec::new()));
    harness.expect_dead(actor, &format!("it was killed to end the actor {actor}"));
}

#[test]
fn actor_created_after_its_spawn_was_cancelled_is_stopped() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, plain()).expect_placed();
    let worker = harness.state.worker_of_actor(actor).unwrap();
    harness.handle(ControlEvent::SpawnCancelled {
        actor,
        cause: "it was not spawned: the timeout has passed".to_owned(),
    });
    let at = location(worker, actor);
    let actions = harness.handle(ControlEvent::ActorStarted { actor, worker, at });
    assert_eq!(actions, [Action::StopActor { node: NodeId(1), worker, actor, at }]);
}

#[test]
fn actor_killed_during_its_constructor_is_dead_once_that_returns() {
    let (mut harness, job) = Harness::with_nodes(1);
    let spec = || ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) };
    let request = harness.place(job, spec());
    let actor = request.expect_placed();
    let worker = harness.state.worker_of_actor(actor).unwrap();
    let killed = harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
    assert_eq!(killed.reply, Some(Ok(ControlReply::Done)));
    assert_eq!((killed.actions.len(), killed_records(&killed.actions)), (1, vec![actor]));
    let row = harness.actor(actor);
    assert_eq!(row.state, ActorState::PendingCreation);
    let cause = row.cause.unwrap();
    assert!(cause.starts_with("it was killed and ends when its constructor returns"), "{cause}");
    assert_eq!(harness.free_cpus(1), 0.0);

    // A request that waits for the name does not get an actor that is about to end.
    let ticket = harness.ticket();
    let found = ControlEvent::Find { ticket, namespace: "own".to_owned(), name: "a".to_owned() };
    assert_eq!(harness.handle(found), []);
    let at = location(worker, actor);
    let stop = Action::StopActor { node: NodeId(1), worker, actor, at };
    assert_eq!(harness.handle(ControlEvent::ActorStarted { actor, worker, at }), [stop]);
    let mut ended = harness.handle(actor_ended(actor, "it was stopped"));
    harness.expect_dead(actor, "it was stopped");
    assert!(take_reply(&mut ended, ticket).unwrap().is_err());
    assert_eq!(harness.free_cpus(1), 4.0);
}

#[test]
fn actor_killed_during_its_constructor_ends_with_anything_that_ends_it() {
    let ends: [fn(&mut Harness, ActorKey); 3] = [
        |harness, actor| {
            drop(harness.handle(ControlEvent::SpawnCancelled { actor, cause: "it panicked".to_owned() }))
        },
        |harness, actor| drop(harness.ended(harness.state.worker_of_actor(actor).unwrap())),
        |harness, actor| drop(harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor })),
    ];
    for end in ends {
        let (mut harness, job) = Harness::with_nodes(1);
        let actor = harness.place(job, cpus(4.0)).expect_placed();
        harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
        assert_eq!(harness.actor(actor).state, ActorState::PendingCreation);
        end(&mut harness, actor);
        assert_eq!((harness.actor(actor).state, harness.free_cpus(1)), (ActorState::Dead, 4.0));
    }
}

#[test]
fn killed_actor_of_which_its_worker_reports_nothing_is_dead_after_a_time() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, cpus(4.0)).expect_placed();
    let worker = harness.state.worker_of_actor(actor).unwrap();
    harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
    let seconds = Settings::default().kill_lease.as_secs();
    harness.advance(seconds - 1, &[agent(1, 1)], &[job]);
    // A second request does not extend the time.
    harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
    assert_eq!(harness.actor(actor).state, ActorState::PendingCreation);
    harness.advance(1, &[agent(1, 1)], &[job]);
    harness.expect_dead(actor, "it was killed, and its constructor did not return within 60 s");
    assert_eq!(harness.free_cpus(1), 4.0);
    // It starts after all, and is stopped.
    let at = location(worker, actor);
    let stop = Action::StopActor { node: NodeId(1), worker, actor, at };
    assert_eq!(harness.handle(ControlEvent::ActorStarted { actor, worker, at }), [stop]);
}

#[test]
fn assignment_whose_request_has_failed_without_an_outcome_is_given_up_after_a_time() {
    for is_created in [true, false] {
        let (mut harness, job) = Harness::with_nodes(1);
        let spec = ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) };
        let actor = harness.place(job, spec).expect_placed();
        harness.handle(ControlEvent::SpawnGivenUp { actor });
        let find = |ticket| ControlEvent::Find { ticket, namespace: "own".to_owned(), name: "a".to_owned() };
        let find = harness.ask(find);
        if is_created {
            harness.create(actor);
        }
        let seconds = Settings::default().start_lease.as_secs();
        let actions = harness.advance(seconds + 1, &[agent(1, 1)], &[job]);
        assert_eq!(harness.free_cpus(1), if is_created { 0.0 } else { 4.0 });
        if !is_created {
            harness.expect_dead(actor, "it was not created within 10 s of the end of its request");
            let is_answer =
                |it: &Action| matches!(it, Action::Reply { ticket, reply: Err(_) } if *ticket == find.ticket);
            assert!(actions.iter().any(is_answer), "a look-up waits for an actor that is never created");
        }
    }
}

#[test]
fn assignment_whose_requester_has_ended_is_given_up_after_a_time() {
    for is_created in [true, false] {
        let (mut harness, job) = Harness::with_nodes(2);
        let requester = harness.place(job, on(1, plain())).expect_placed();
        let requester = harness.create(requester);
        let id = Some(RequestId { from: member(requester).actors, number: 1 });
        let place = |ticket| ControlEvent::Place { ticket, job, spec: on(2, cpus(4.0)), recipe: None, id };
        let actor = harness.ask(place).expect_placed();
        harness.ended(requester);
        assert_eq!(harness.free_cpus(2), 0.0);
        // Its worker may have got the call, and its report may be on the way.
        if is_created {
            harness.create(actor);
        }
        let seconds = Settings::default().start_lease.as_secs();
        harness.advance(seconds + 1, &[agent(1, 1), agent(2, 1)], &[job]);
        assert_eq!(harness.free_cpus(2), if is_created { 0.0 } else { 4.0 });
        if !is_created {
            harness.expect_dead(actor, "it was not created within 10 s of the end of its request");
        }
    }
}
