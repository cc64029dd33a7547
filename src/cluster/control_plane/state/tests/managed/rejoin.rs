//! Tests of managed actors across a restart of the head, and at the rejoin of their nodes.

use super::*;
use crate::cluster::control_plane::state::tests::restart::Recorder;
use crate::cluster::model::EndedWorker;

pub(super) fn worker_report(job: JobId, worker: WorkerId, actors: &[(ActorKey, u32)]) -> WorkerReport {
    let actors = actors.iter().map(|(actor, incarnation)| {
        (*actor, "Plain".to_owned(), managed_location(worker, *actor, *incarnation))
    });
    WorkerReport {
        worker,
        job,
        detached: None,
        member: Some(member(worker)),
        pid: 7,
        suspended: false,
        actors: actors.collect(),
        tasks: Vec::new(),
    }
}

/// Identity of the request for the recorded actor.
fn request() -> RequestId {
    RequestId { from: agent(9, 1), number: 7 }
}

/// Node with a managed actor that has failed `failures` times and is alive, with all actions so far.
pub(super) fn recorded(failures: u32, spec: ActorSpec) -> (Recorder, JobId, ActorKey, WorkerId) {
    let mut recorder = Recorder::new();
    recorder.record_event(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(1, 4.0, 1))));
    let ticket = recorder.harness.ticket();
    recorder.record_event(ControlEvent::JobStarted { ticket, job: None, descriptor: job_descriptor(1) });
    let job = JobId(1);
    let worker = started(&recorder.record_event(ControlEvent::NodeProvisioned { job, node: NodeId(1) }))[0];
    recorder.record_event(ControlEvent::WorkerReady { worker, member: member(worker), pid: 7 });
    let ticket = recorder.harness.ticket();
    let spec = match spec.restart {
        None => restartable(at_most(3), spec),
        Some(_) => spec,
    };
    recorder.record_event(ControlEvent::Place {
        ticket,
        job,
        spec,
        recipe: Some(recipe(10)),
        id: Some(request()),
    });
    let actor = *recorder.harness.state.managed.keys().next().unwrap();
    let created = |incarnation| ControlEvent::ActorStarted {
        actor,
        worker,
        at: managed_location(worker, actor, incarnation),
    };
    recorder.record_event(created(0));
    for incarnation in 0..failures {
        recorder.record_event(incarnation_ended(actor, incarnation, EndReason::Panicked, "boom"));
        recorder.harness.now += 1_000;
        recorder.record_event(ControlEvent::Tick);
        recorder.record_event(created(incarnation + 1));
    }
    (recorder, job, actor, worker)
}

#[test]
fn recipe_and_incarnation_survive_a_restart_of_the_head() {
    let (recorder, job, actor, worker) = recorded(1, cpus(1.0));
    let (mut harness, _) = recorder.restart();
    let locator = harness.locate(actor, None).expect_pending();
    assert_eq!(harness.state.jobs[&job].recipe_bytes, recipe(10).len());
    let report = worker_report(job, worker, &[(actor, 1)]);
    let mut actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!((starts(&actions), stops(&actions)), (vec![], vec![]));
    harness.expect_found(take_reply(&mut actions, locator).as_ref(), actor, 1);
    assert_eq!((harness.free_cpus(1), harness.actor(actor).restarts), (3.0, 1));
    harness.panics(actor, 1);
    let actions = harness.after(100);
    let made_of = actions.iter().find_map(|action| match action {
        Action::StartActor { recipe, at, .. } => Some((Arc::clone(recipe), at.target.incarnation.0)),
        _ => None,
    });
    assert_eq!(made_of, Some((recipe(10), 2)));
}

#[test]
fn unaccounted_actor_is_restarted_once_all_nodes_have_rejoined() {
    let (recorder, job, actor, worker) = recorded(0, ActorSpec { name: Some("a".to_owned()), ..cpus(1.0) });
    let (mut harness, _) = recorder.restart();
    let locator = harness.locate(actor, None).expect_pending();
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![worker_report(job, worker, &[])]);
    assert_eq!(starts(&actions), [(worker, 1)]);
    assert!(matches!(harness.place(job, named("a")).reply, Some(Err(ControlError::NameTaken(_)))));
    // Its node reports it after all.
    assert_eq!(stops(&harness.created(actor, worker, 0)), [(worker, 0)]);
    let mut actions = harness.created(actor, worker, 1);
    harness.expect_found(take_reply(&mut actions, locator).as_ref(), actor, 1);
    assert_eq!(harness.free_cpus(1), 3.0);
}

#[test]
fn locate_waits_if_the_rejoining_node_reports_the_incarnation_that_is_gone() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let locator = harness.locate(actor, Some(0)).expect_pending();
    let report = worker_report(job, worker, &[(actor, 0)]);
    let mut actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!(take_reply(&mut actions, locator), None);
    harness.panics(actor, 0);
    harness.after(100);
    let mut actions = harness.created(actor, worker, 1);
    harness.expect_found(take_reply(&mut actions, locator).as_ref(), actor, 1);
}

#[test]
fn reported_incarnation_after_the_recorded_one_is_the_present_one() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let report = worker_report(job, worker, &[(actor, 2)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!((starts(&actions), stops(&actions)), (vec![], vec![]));
    let found = harness.locate(actor, None);
    harness.expect_found(found.reply.as_ref(), actor, 2);
    // Written, so that the next head does not use the number again.
    let written = durable_records(&actions).into_iter().find_map(|record| match record {
        Record::Actor { incarnation, .. } => Some(incarnation),
        _ => None,
    });
    assert_eq!(written, Some(ActorIncarnation(2)));
    assert_eq!(harness.handle(incarnation_ended(actor, 0, EndReason::Stopped, "late")), []);
    harness.panics(actor, 2);
    assert_eq!(starts(&harness.after(100)), [(worker, 3)]);
}

#[test]
fn reported_incarnation_before_the_recorded_one_is_stopped() {
    let (recorder, job, actor, worker) = recorded(1, plain());
    let (mut harness, _) = recorder.restart();
    let report = worker_report(job, worker, &[(actor, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![(worker, 2)]));
    assert_eq!(harness.actor(actor).state, ActorState::Restarting);
}

#[test]
fn actor_without_a_further_incarnation_number_ends() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let report = worker_report(job, worker, &[(actor, u32::MAX)]);
    harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    harness.panics(actor, u32::MAX);
    harness.expect_gone(actor, EndReason::Panicked, "boom; it has no further incarnation");
}

#[test]
fn ended_managed_actor_is_not_adopted_by_a_restarted_head() {
    let (mut recorder, job, actor, worker) = recorded(0, plain());
    recorder.record_event(incarnation_ended(actor, 0, EndReason::Stopped, "done"));
    let (mut harness, _) = recorder.restart();
    // A worker that could not be reached still runs it.
    let report = worker_report(job, worker, &[(actor, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!(stops(&actions), [(worker, 0)]);
    assert_eq!(harness.state.actors.len(), 0);
}

#[test]
fn recipe_of_an_actor_without_a_record_is_deleted() {
    let (recorder, _, actor, _) = recorded(0, plain());
    let actions = recorder
        .actions
        .into_iter()
        .filter(|action| !matches!(action, Action::Persist(Record::Actor { .. })))
        .collect();
    let (harness, actions) = Recorder { actions, ..recorder }.restart();
    assert!(actions.contains(&Action::Delete(RecordKey::Recipe(actor))));
    assert!(harness.state.managed.is_empty());
}

#[test]
fn missed_start_is_repeated_when_the_node_rejoins() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (alive, worker) = harness.spawn_managed(job, restartable(at_most(0), plain()));
    let (_, actor, _) = harness.start_managed(job, restartable(at_most(0), plain()));
    let report = worker_report(job, worker, &[(alive, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report.clone()]);
    assert_eq!(starts(&actions), [(worker, 0)]);
    // Not once it is reported.
    let report = worker_report(job, worker, &[(alive, 0), (actor, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report.clone()]);
    assert_eq!((starts(&actions), harness.actor(actor).state), (vec![], ActorState::Alive));
    assert_eq!(starts(&harness.rejoin(node_descriptor(1, 4.0, 1), vec![report])), []);
}

#[test]
fn incarnation_is_lost_if_its_worker_rejoins_with_an_earlier_one() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(1), plain()));
    harness.panics(actor, 0);
    harness.after(100);
    harness.created(actor, worker, 1);
    let report = worker_report(job, worker, &[(actor, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![(worker, 2)]));
}

#[test]
fn actor_that_stopped_while_the_head_was_away_is_not_restarted() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let end = End::new(EndReason::Stopped, "it stopped");
    let report = NodeReport {
        workers: vec![worker_report(job, worker, &[])],
        ended: vec![(actor, ActorIncarnation(0), end)],
        ..NodeReport::idle(node_descriptor(1, 4.0, 1))
    };
    let actions = harness.handle(ControlEvent::NodeJoined(report));
    assert_eq!(starts(&actions), []);
    harness.expect_dead(actor, "it stopped");
}

#[test]
fn killed_actor_is_stopped_by_a_restarted_head_and_not_restarted() {
    for reported in [true, false] {
        let (mut recorder, job, actor, worker) = recorded(0, plain());
        let ticket = recorder.harness.ticket();
        let killed = recorder.record_event(ControlEvent::Kill { ticket, actor });
        assert_eq!(killed_records(&killed), [actor]);
        // The head ends before the stop reaches the actor.
        let (mut harness, _) = recorder.restart();
        let present = [(actor, 0)];
        let report = worker_report(job, worker, if reported { &present } else { &[] });
        let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
        assert_eq!(starts(&actions), []);
        if reported {
            assert_eq!(stops(&actions), [(worker, 0)]);
            harness.panics(actor, 0);
        }
        harness.expect_gone(actor, EndReason::Killed, "it was killed");
    }
}

#[test]
fn repeated_request_gets_the_actor_of_the_first_one_from_a_restarted_head() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let repeat = |harness: &mut Harness| {
        let spec = restartable(at_most(3), plain());
        let (recipe, id) = (Some(recipe(10)), Some(request()));
        harness.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe, id })
    };
    let earlier = repeat(&mut harness).expect_pending();
    let mut again = repeat(&mut harness);
    let ticket = again.expect_pending();
    assert!(matches!(take_reply(&mut again.actions, earlier), Some(Err(ControlError::Unknown(_)))));
    let report = worker_report(job, worker, &[(actor, 0)]);
    let mut actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    let at = managed_location(worker, actor, 0);
    let created = Some(Ok(ControlReply::Created { actor, at, member: member(worker) }));
    assert_eq!(take_reply(&mut actions, ticket), created);
    assert_eq!((repeat(&mut harness).reply, harness.state.managed.len()), (created, 1));
}

#[test]
fn actor_of_an_abandoned_request_ends_after_a_restart_of_the_head() {
    let (recorder, job, actor, worker) = recorded(0, plain());
    let (mut harness, _) = recorder.restart();
    let report = worker_report(job, worker, &[(actor, 0)]);
    harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    let abandoned = ControlEvent::Abandoned { id: request() };
    assert_eq!(stops(&harness.handle(abandoned.clone())), [(worker, 0)]);
    harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was stopped"));
    harness.expect_gone(actor, EndReason::Killed, "it was stopped");
    assert_eq!((harness.handle(abandoned), harness.state.requested.len()), (vec![], 0));
}

#[test]
fn end_of_a_worker_in_a_report_is_that_of_its_actors() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (restarted, worker) = harness.spawn_managed(job, restartable(at_most(1), plain()));
    let (exhausted, _) = harness.spawn_managed(job, restartable(at_most(0), plain()));
    let (plain, _) = harness.spawn(job, plain());
    let host = member(worker).actors;
    let end = End::new(EndReason::Exited(101), "exit code 101");
    let ended = EndedWorker { worker, end, killed: false };
    // A report contains the last ends, also of workers that are known to have ended.
    let other = EndedWorker { worker: WorkerId(99), ..ended.clone() };
    let report =
        NodeReport { ended_workers: vec![other, ended], ..NodeReport::idle(node_descriptor(1, 4.0, 1)) };
    harness.handle(ControlEvent::NodeJoined(report));
    harness.expect_dead(plain, "exit code 101");
    let end = End::new(EndReason::Exited(101), "worker 7 on node 0000000000000001: exit code 101");
    assert_eq!(harness.state.host_end(host), Some(end));
    // It counts as a failure of all actors, as when it is reported by itself.
    let why = "exit code 101; it failed more than 0 times within 10s, after 0 restarts";
    let gone = ControlReply::Gone(End::new(EndReason::Exited(101), why));
    assert_eq!(harness.locate(exhausted, None).reply, Some(Ok(gone)));
    assert_eq!(harness.actor(restarted).state, ActorState::Restarting);
}

#[test]
fn stops_of_incarnations_that_are_left_behind_follow_the_records() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (parent, worker) = harness.spawn_managed(job, restartable(at_most(3), plain()));
    let child = ActorSpec { parent: Some((parent, ActorIncarnation(0))), ..plain() };
    let (child, _) = harness.spawn_managed(job, restartable(at_most(3), child));
    let at = managed_location(worker, child, 0);
    let actions = harness.panics(parent, 0);
    // A restarted head that knows the child would take this stop for a kill.
    let stop = Action::StopIncarnation { node: NodeId(1), worker, actor: child, at };
    assert_eq!((stops(&actions), actions.contains(&stop)), (vec![(worker, 0)], true));
    assert!(actions.contains(&Action::Delete(RecordKey::Actor(child))));
    harness.after(100);
    harness.created(parent, worker, 1);
    let killed = harness.ask(|ticket| ControlEvent::Kill { ticket, actor: parent }).actions;
    let at = managed_location(worker, parent, 1);
    assert!(killed.contains(&Action::StopActor { node: NodeId(1), worker, actor: parent, at }));
}

#[test]
fn start_that_waits_for_the_disk_is_not_wanted_after_a_kill() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, actor, worker) = harness.start_managed(job, restartable(at_most(1), plain()));
    let at = managed_location(worker, actor, 0);
    assert!(harness.state.awaits_start(actor, worker, at));
    harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
    assert!(!harness.state.awaits_start(actor, worker, at));
}
