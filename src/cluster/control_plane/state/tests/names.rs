//! Tests of names and look-ups.

use super::*;

fn wanted(name: &str) -> ActorSpec {
    ActorSpec { get_if_exists: true, ..named(name) }
}

fn find(harness: &mut Harness, name: &str) -> IssuedRequest {
    harness.ask(|ticket| ControlEvent::Find { ticket, namespace: "own".to_owned(), name: name.to_owned() })
}

#[test]
fn name_is_taken_from_the_request_until_the_actor_is_dead() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, named("a")).expect_placed();
    let taken =
        "the name a of the namespace own is taken by actor 0000000000000001 of type Plain of job 00000001";
    let advice = ": take another name, or kill that actor";
    harness
        .place(job, named("a"))
        .expect_error(ControlError::NameTaken, &format!("{taken}, which is being created{advice}"));
    harness.create(actor);
    harness.place(job, named("a")).expect_error(ControlError::NameTaken, &format!("{taken}{advice}"));
    harness.handle(actor_ended(actor, ""));
    harness.place(job, named("a")).expect_placed();
}

#[test]
fn namespaces_do_not_share_names() {
    let (mut harness, job) = Harness::with_nodes(1);
    harness.spawn(job, named("a"));
    harness.place(job, ActorSpec { namespace: "other".to_owned(), ..named("a") }).expect_placed();
}

#[test]
fn get_if_exists_returns_the_alive_actor() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, wanted("a"));
    let request = harness.place(job, wanted("a"));
    let alive = Some(location(worker, actor));
    assert_eq!(request.reply, Some(Ok(ControlReply::Placed { actor, member: member(worker), alive })));
    let other = ActorSpec { class: "Other".to_owned(), ..wanted("a") };
    assert!(matches!(harness.place(job, other).reply, Some(Err(ControlError::NameTaken(_)))));
}

#[test]
fn waiters_for_a_name_are_answered_in_order_except_cancelled_ones() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, named("a")).expect_placed();
    let pending: Vec<Ticket> = (0..1000).map(|_| find(&mut harness, "a").expect_pending()).collect();
    for ticket in pending.iter().skip(1).step_by(2) {
        assert_eq!(harness.handle(ControlEvent::Cancelled { ticket: *ticket }), []);
    }
    let worker = harness.state.worker_of_actor(actor).unwrap();
    let at = location(worker, actor);
    let answered =
        harness.handle(ControlEvent::ActorStarted { actor, worker, at }).into_iter().filter_map(|action| {
            match action {
                Action::Reply { ticket, reply: Ok(ControlReply::Found { .. }) } => Some(ticket),
                _ => None,
            }
        });
    assert_eq!(answered.collect::<Vec<_>>(), pending.into_iter().step_by(2).collect::<Vec<_>>());
}

#[test]
fn get_if_exists_waits_for_a_pending_actor_and_replaces_it_if_it_fails() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, named("a")).expect_placed();
    let [first, second] = [(); 2].map(|()| harness.place(job, wanted("a")).expect_pending());
    let mut actions = harness.handle(actor_ended(actor, "it refused"));
    let next = take_placed(&mut actions, first);
    assert_eq!(take_reply(&mut actions, second), None);
    let worker = harness.state.worker_of_actor(next).unwrap();
    let at = location(worker, next);
    let mut actions = harness.handle(ControlEvent::ActorStarted { actor: next, worker, at });
    let alive = Some(at);
    assert_eq!(
        take_reply(&mut actions, second),
        Some(Ok(ControlReply::Placed { actor: next, member: member(worker), alive }))
    );
}

#[test]
fn waiting_for_an_actor_of_another_job_ends_with_the_own_job() {
    let (mut harness, job) = Harness::with_nodes(1);
    let actor = harness.place(job, named("a")).expect_placed();
    let other = harness.start_job();
    let pending = harness.place(other, wanted("a")).expect_pending();
    let mut actions = harness.end_job(other);
    let expected = "its job has ended: done".to_owned();
    assert_eq!(take_reply(&mut actions, pending), Some(Err(ControlError::JobEnded(expected))));
    let worker = harness.create(actor);
    assert_eq!(harness.state.worker_of_actor(actor), Some(worker));
}

#[test]
fn look_up_finds_alive_actors_and_waits_for_assigned_ones() {
    let (mut harness, job) = Harness::with_nodes(1);
    find(&mut harness, "a")
        .expect_error(ControlError::Unknown, "no actor has the name a in the namespace own");
    let actor = harness.place(job, named("a")).expect_placed();
    let pending = find(&mut harness, "a").expect_pending();
    let mut actions = harness.handle(actor_ended(actor, "it was not spawned"));
    let none = "it was not created, or has ended since".to_owned();
    assert_eq!(take_reply(&mut actions, pending), Some(Err(ControlError::Unknown(none))));

    let actor = harness.place(job, named("a")).expect_placed();
    let pending = find(&mut harness, "a").expect_pending();
    let worker = harness.state.worker_of_actor(actor).unwrap();
    let at = location(worker, actor);
    let mut actions = harness.handle(ControlEvent::ActorStarted { actor, worker, at });
    let found = ControlReply::Found { actor, class: "Plain".to_owned(), at, member: member(worker) };
    assert_eq!(take_reply(&mut actions, pending), Some(Ok(found.clone())));
    assert_eq!(find(&mut harness, "a").reply, Some(Ok(found)));
}
