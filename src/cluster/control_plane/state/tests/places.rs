//! Who gets a place, who waits, and who is denied.

use super::*;

#[test]
fn an_actor_that_lives_though_its_spawning_was_given_up_is_stopped_and_holds_on_until_it_ends() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, worker) = lab.spawn(job, ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) });
    let given_up = || Event::NotSpawned { actor, cause: "its caller waited no longer".to_owned() };
    let stop = Action::StopActor { node: NodeId(1), worker, actor, at: place(worker, actor) };
    assert_eq!(lab.handle(given_up()), [stop]);
    assert_eq!(lab.free_cpus(1), 0.0);
    assert!(matches!(lab.place(job, named("a")).answer, Some(Err(ControlError::NameTaken(_)))));
    lab.handle(Event::ActorEnded { actor, cause: "it was stopped".to_owned() });
    assert_eq!(lab.free_cpus(1), 4.0);
    lab.spawn(job, named("a"));
}
use crate::cluster::model::Strategy;

#[test]
fn an_actor_goes_to_a_ready_worker_and_holds_what_it_wants_until_it_ends() {
    let (mut lab, job) = Lab::with_nodes(1);
    let asking = lab.place(job, cpus(1.5));
    let actor = asking.placed();
    assert_eq!(lab.actor(actor).state, ActorState::PendingCreation);
    assert_eq!(lab.free_cpus(1), 2.5);
    let worker = lab.begin(actor);
    let info = lab.actor(actor);
    assert_eq!((info.state, info.worker_id, info.pid), (ActorState::Alive, Some(worker), Some(7)));
    assert_eq!(info.resources, Resources::none().with(Resources::CPU, 1.5));
    lab.handle(Event::ActorEnded { actor, cause: "it stopped".to_owned() });
    lab.is_dead(actor, "it stopped");
    assert_eq!(lab.free_cpus(1), 4.0);
}

#[test]
fn nodes_take_turns_and_packing_does_not() {
    let (mut lab, job) = Lab::with_nodes(3);
    let mut nodes = |spec: ActorSpec| {
        [(); 4].map(|()| {
            let (_, worker) = lab.spawn(job, spec.clone());
            lab.node_of(worker)
        })
    };
    assert_eq!(nodes(plain()), [1, 2, 3, 1]);
    assert_eq!(nodes(ActorSpec { strategy: Strategy::Pack, ..cpus(2.0) }), [1, 1, 2, 2]);
}

#[test]
fn an_actor_goes_to_the_worker_with_the_fewest_actors() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 3));
    let job = lab.start_job();
    let workers = lab.equip_and_start(job, 1);
    let spawned: Vec<_> = (0..3).map(|_| lab.spawn(job, plain())).collect();
    let mut used: Vec<_> = spawned.iter().map(|(_, worker)| *worker).collect();
    used.sort_unstable();
    assert_eq!(used, workers);
    let (actor, worker) = spawned[1];
    lab.handle(Event::ActorEnded { actor, cause: String::new() });
    assert_eq!(lab.spawn(job, plain()).1, worker);
}

#[test]
fn what_no_node_could_ever_take_is_denied_at_once() {
    let (mut lab, job) = Lab::with_nodes(2);
    lab.place(job, cpus(5.0)).is_denied(
        ControlError::Infeasible,
        "no node could ever take it: it wants cpu 5, and the most that one node has is cpu 4; \
         single nodes have up to cpu 4",
    );
    lab.place(job, on(9, plain()))
        .is_denied(ControlError::Infeasible, "there is no node 0000000000000009 in the cluster");
    let long = "x".repeat(513);
    lab.place(job, named(&long))
        .is_denied(ControlError::Infeasible, "a name of 513 bytes is too long: at most 512 are allowed");
    assert_eq!(lab.state.waiting(usize::MAX), []);
}

#[test]
fn what_has_no_room_waits_for_it_in_the_order_of_asking() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (first, _) = lab.spawn(job, cpus(3.0));
    let waiting = [lab.place(job, cpus(2.0)).waits(), lab.place(job, cpus(2.0)).waits()];
    let small = lab.place(job, cpus(1.0)).placed();
    let reason = "it wants cpu 2, and the most that one node has free is cpu 0";
    assert_eq!(lab.reasons(), [reason, reason]);
    lab.handle(Event::ActorEnded { actor: small, cause: String::new() });
    let mut actions = lab.handle(Event::ActorEnded { actor: first, cause: String::new() });
    let placed = waiting.map(|ticket| take_placed(&mut actions, ticket));
    assert!(placed[0] < placed[1]);
    assert_eq!(lab.free_cpus(1), 0.0);
}

#[test]
fn whoever_wants_the_same_as_one_who_waits_waits_behind_him() {
    let (mut lab, job) = Lab::with_nodes(2);
    lab.spawn(job, on(1, cpus(3.0)));
    lab.place(job, on(1, cpus(2.0))).waits();
    lab.place(job, on(1, cpus(2.0))).waits();
    let other = lab.place(job, cpus(2.0)).placed();
    let worker = lab.begin(other);
    assert_eq!(lab.node_of(worker), 2);
}

#[test]
fn whoever_waits_no_longer_leaves_nothing_behind() {
    let (mut lab, job) = Lab::with_nodes(1);
    lab.spawn(job, cpus(4.0));
    let ticket = lab.place(job, named("a")).placed();
    let waits = lab.place(job, ActorSpec { name: Some("b".to_owned()), ..cpus(1.0) }).waits();
    assert_eq!(lab.handle(Event::Cancelled { ticket: waits }), []);
    assert_eq!(lab.state.waiting(usize::MAX), []);
    assert_eq!(lab.actor(ticket).name.as_deref(), Some("a"));
    assert_eq!(lab.place(job, named("b")).placed(), ActorKey(ticket.0 + 2));
}

#[test]
fn actors_wait_until_a_worker_is_ready_and_share_the_workers_then() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 2));
    let job = lab.start_job();
    let waiting = [(); 4].map(|()| lab.place(job, cpus(1.0)).waits());
    assert_eq!(lab.reasons()[0], "no node runs workers of the job yet");
    let workers = lab.equip(job, 1);
    assert_eq!(workers.len(), 2);
    assert_eq!(lab.free_cpus(1), 0.0);
    assert_eq!(lab.reasons()[0], "workers of its job are being started on node 0000000000000001");
    let mut actions = lab.ready(workers[0]);
    for ticket in &waiting[..2] {
        take_placed(&mut actions, *ticket);
    }
    let mut actions = lab.ready(workers[1]);
    for ticket in &waiting[2..] {
        take_placed(&mut actions, *ticket);
    }
    let actors = lab.state.actors();
    let on = |worker| actors.iter().filter(|actor| actor.worker_id == Some(worker)).count();
    assert_eq!([on(workers[0]), on(workers[1])], [2, 2]);
}

#[test]
fn a_node_without_workers_takes_no_actors() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 0));
    let job = lab.start_job();
    assert_eq!(lab.equip(job, 1), []);
    let why = "no node of the cluster takes work: start a node with at least one worker";
    lab.place(job, plain()).is_denied(ControlError::Infeasible, why);
    let why = "node 0000000000000001 takes no work: start a node with at least one worker";
    lab.place(job, on(1, plain())).is_denied(ControlError::Infeasible, why);
}

#[test]
fn whoever_waits_is_denied_when_the_last_node_that_could_take_him_goes() {
    let (mut lab, job) = Lab::with_nodes(2);
    lab.spawn(job, on(1, cpus(4.0)));
    lab.spawn(job, on(2, cpus(4.0)));
    let any = lab.place(job, cpus(1.0)).waits();
    let only = lab.place(job, on(1, cpus(1.0))).waits();
    let mut actions = lab.handle(Event::NodeLeft { node: agent(1, 1), cause: "it was stopped".to_owned() });
    let denied = take_answer(&mut actions, only);
    assert_eq!(
        denied,
        Some(Err(ControlError::Infeasible("node 0000000000000001 is dead: it was stopped".to_owned())))
    );
    assert_eq!(take_answer(&mut actions, any), None);
    let mut actions = lab.handle(Event::NodeDrain { node: NodeId(2) });
    let why = "no node of the cluster takes work: start a node with at least one worker";
    assert_eq!(take_answer(&mut actions, any), Some(Err(ControlError::Infeasible(why.to_owned()))));
}

#[test]
fn a_detached_actor_has_a_worker_of_its_own_for_as_long_as_it_lives() {
    let (mut lab, job) = Lab::with_nodes(1);
    let asking = lab.place(job, detached(cpus(1.0)));
    let ticket = asking.waits();
    let own = started(&asking.actions)[0];
    assert_eq!(lab.free_cpus(1), 3.0);
    assert_eq!(lab.reasons(), [format!("worker {own} is being started for it")]);
    let mut actions = lab.ready(own);
    let actor = take_placed(&mut actions, ticket);
    assert_eq!(lab.begin(actor), own);
    lab.end_job(job);
    assert_eq!(lab.actor(actor).state, ActorState::Alive);
    let actions = lab.handle(Event::ActorEnded { actor, cause: "it stopped".to_owned() });
    assert_eq!(stopped(&actions), [own]);
    assert_eq!(lab.free_cpus(1), 4.0);
}

#[test]
fn a_detached_actor_may_begin_after_its_job_has_ended_but_not_for_ever() {
    let (mut lab, job) = Lab::with_nodes(1);
    let mut place = || {
        let asking = lab.place(job, detached(cpus(1.0)));
        let own = started(&asking.actions)[0];
        (own, take_placed(&mut lab.ready(own), asking.ticket))
    };
    let [(early, begins), (late, never)] = [place(), place()];
    let stopped_with_job = stopped(&lab.end_job(job));
    assert!(!stopped_with_job.contains(&early) && !stopped_with_job.contains(&late));
    assert_eq!(lab.begin(begins), early);
    let actions = lab.pass(11, &[agent(1, 1)], &[]);
    assert_eq!(lab.actor(begins).state, ActorState::Alive);
    assert_eq!(stopped(&actions), [late]);
    lab.is_dead(never, "it was not created within 10 s of the end of its job");
    assert_eq!(lab.free_cpus(1), 3.0);
}

#[test]
fn a_detached_actor_whose_worker_does_not_start_is_denied_in_the_end() {
    let (mut lab, job) = Lab::with_nodes(1);
    let asking = lab.place(job, detached(plain()));
    let mut own = started(&asking.actions)[0];
    for _ in 0..2 {
        own = started(&lab.ended(own))[0];
    }
    let mut actions = lab.ended(own);
    let why = "its dedicated worker failed to start 3 times: exit code 1";
    assert_eq!(take_answer(&mut actions, asking.ticket), Some(Err(ControlError::Infeasible(why.to_owned()))));
    assert_eq!(started(&actions), []);
}

#[test]
fn killing_withdraws_what_waits_and_stops_what_lives() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (alive, worker) = lab.spawn(job, cpus(4.0));
    let waits = lab.place(job, cpus(1.0)).waits();
    let key = ActorKey(alive.0 + 1);
    let mut killed = lab.ask(|ticket| Event::Kill { ticket, actor: key });
    let why = "it was killed before it was created".to_owned();
    assert_eq!(take_answer(&mut killed.actions, waits), Some(Err(ControlError::Unknown(why))));
    assert_eq!(killed.answer, Some(Ok(Answer::Done)));

    let killed = lab.ask(|ticket| Event::Kill { ticket, actor: alive });
    assert_eq!(killed.answer, Some(Ok(Answer::Done)));
    let at = place(worker, alive);
    assert_eq!(killed.actions, [Action::StopActor { node: NodeId(1), worker, actor: alive, at }]);
    assert_eq!(lab.actor(alive).state, ActorState::Alive);
    lab.handle(Event::ActorEnded { actor: alive, cause: "it was killed".to_owned() });
    lab.is_dead(alive, "it was killed");

    let again = lab.ask(|ticket| Event::Kill { ticket, actor: alive });
    assert_eq!(again.answer, Some(Ok(Answer::Done)));
    let unknown = lab.ask(|ticket| Event::Kill { ticket, actor: ActorKey(99) });
    unknown.is_denied(ControlError::Unknown, "there is no actor 0000000000000063, or it ended long ago");
}

#[test]
fn an_actor_that_handles_nothing_ends_with_its_worker_and_another_takes_the_place() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (blocked, worker) = lab.spawn(job, cpus(1.0));
    lab.ask(|ticket| Event::Kill { ticket, actor: blocked });
    assert_eq!(lab.actor(blocked).state, ActorState::Alive);
    let forced = lab.ask(|ticket| Event::KillWorkerOf { ticket, actor: blocked });
    assert_eq!(forced.answer, Some(Ok(Answer::Done)));
    assert_eq!(stopped(&forced.actions), [worker]);
    assert_eq!(started(&forced.actions).len(), 1);
    lab.is_dead(blocked, &format!("it was killed to end the actor {blocked}"));
    assert_eq!(lab.free_cpus(1), 4.0);
    // Its worker's end is no news.
    assert_eq!(started(&lab.ended(worker)), []);

    let again = lab.ask(|ticket| Event::KillWorkerOf { ticket, actor: blocked });
    assert_eq!((again.answer, stopped(&again.actions)), (Some(Ok(Answer::Done)), Vec::new()));
    let unknown = lab.ask(|ticket| Event::KillWorkerOf { ticket, actor: ActorKey(99) });
    unknown.is_denied(ControlError::Unknown, "there is no actor 0000000000000063, or it ended long ago");
}

#[test]
fn a_detached_actor_ends_with_the_worker_of_its_own_and_none_takes_the_place() {
    let (mut lab, job) = Lab::with_nodes(1);
    let asking = lab.place(job, detached(plain()));
    let own = started(&asking.actions)[0];
    let actor = lab.state.actors().last().unwrap().actor_id;
    // It is being started.
    let starting = lab.ask(|ticket| Event::KillWorkerOf { ticket, actor });
    assert_eq!((stopped(&starting.actions), started(&starting.actions)), (vec![own], Vec::new()));
    lab.is_dead(actor, "it was killed before it was created");

    let asking = lab.place(job, detached(plain()));
    let own = started(&asking.actions)[0];
    let actor = take_placed(&mut lab.ready(own), asking.ticket);
    lab.begin(actor);
    let forced = lab.ask(|ticket| Event::KillWorkerOf { ticket, actor });
    assert_eq!((stopped(&forced.actions), started(&forced.actions)), (vec![own], Vec::new()));
    lab.is_dead(actor, &format!("it was killed to end the actor {actor}"));
}

#[test]
fn an_actor_that_begins_after_it_was_given_up_is_stopped() {
    let (mut lab, job) = Lab::with_nodes(1);
    let actor = lab.place(job, plain()).placed();
    let worker = lab.state.worker_of_actor(actor).unwrap();
    lab.handle(Event::NotSpawned { actor, cause: "it was not spawned: the timeout has passed".to_owned() });
    let at = place(worker, actor);
    let actions = lab.handle(Event::ActorStarted { actor, worker, at });
    assert_eq!(actions, [Action::StopActor { node: NodeId(1), worker, actor, at }]);
}

#[test]
fn an_actor_that_is_killed_while_its_constructor_runs_is_dead_once_that_has_ended() {
    let (mut lab, job) = Lab::with_nodes(1);
    let spec = || ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) };
    let asking = lab.place(job, spec());
    let actor = asking.placed();
    let worker = lab.state.worker_of_actor(actor).unwrap();
    let killed = lab.ask(|ticket| Event::Kill { ticket, actor });
    assert_eq!((killed.answer, killed.actions), (Some(Ok(Answer::Done)), Vec::new()));
    let row = lab.actor(actor);
    assert_eq!(row.state, ActorState::PendingCreation);
    let cause = row.cause.unwrap();
    assert!(cause.starts_with("it was killed and ends when its constructor returns"), "{cause}");
    assert_eq!(lab.free_cpus(1), 0.0);

    // What waits for the name is not given an actor that is about to end.
    let ticket = lab.ticket();
    let found = Event::Find { ticket, namespace: "own".to_owned(), name: "a".to_owned() };
    assert_eq!(lab.handle(found), []);
    let at = place(worker, actor);
    let stop = Action::StopActor { node: NodeId(1), worker, actor, at };
    assert_eq!(lab.handle(Event::ActorStarted { actor, worker, at }), [stop]);
    let mut ended = lab.handle(Event::ActorEnded { actor, cause: "it was stopped".to_owned() });
    lab.is_dead(actor, "it was stopped");
    assert!(take_answer(&mut ended, ticket).unwrap().is_err());
    assert_eq!(lab.free_cpus(1), 4.0);
}

#[test]
fn an_actor_that_is_killed_while_its_constructor_runs_ends_with_what_ends_the_constructor() {
    let ends: [fn(&mut Lab, ActorKey); 3] = [
        |lab, actor| drop(lab.handle(Event::NotSpawned { actor, cause: "it panicked".to_owned() })),
        |lab, actor| drop(lab.ended(lab.state.worker_of_actor(actor).unwrap())),
        |lab, actor| drop(lab.ask(|ticket| Event::KillWorkerOf { ticket, actor })),
    ];
    for end in ends {
        let (mut lab, job) = Lab::with_nodes(1);
        let actor = lab.place(job, cpus(4.0)).placed();
        lab.ask(|ticket| Event::Kill { ticket, actor });
        assert_eq!(lab.actor(actor).state, ActorState::PendingCreation);
        end(&mut lab, actor);
        assert_eq!((lab.actor(actor).state, lab.free_cpus(1)), (ActorState::Dead, 4.0));
    }
}
