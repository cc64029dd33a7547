//! Tests of starts that a worker refuses for want of memory.

use super::*;

fn low_memory(actor: ActorKey, incarnation: u32) -> ControlEvent {
    let end = End::new(EndReason::LowMemory, "the worker is full");
    ControlEvent::ActorEnded { actor, incarnation: ActorIncarnation(incarnation), end }
}

/// Requests a managed actor, whose first incarnation is commanded by then.
fn request(harness: &mut Harness, job: JobId, policy: Restart) -> (Ticket, ActorKey) {
    let spec = ActorSpec { restart: Some(policy), ..plain() };
    let request = harness.place_managed(job, spec);
    let created = request.actions.iter().find_map(|action| match action {
        Action::StartActor { actor, .. } => Some(*actor),
        _ => None,
    });
    (request.expect_pending(), created.unwrap())
}

#[test]
fn spawner_of_a_managed_actor_gets_the_refusal_of_its_first_start() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (ticket, actor) = request(&mut harness, job, Restart::on_failure());
    let mut actions = harness.handle(low_memory(actor, 0));
    let expected = ControlError::LowMemory("the worker is full".to_owned());
    assert_eq!(take_reply(&mut actions, ticket), Some(Err(expected)));
    harness.expect_dead(actor, "the worker is full");
}

#[test]
fn refused_restarts_are_failures_with_back_off_and_bounded() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (ticket, actor) = request(&mut harness, job, Restart::on_failure().at_most(2));
    let worker = harness.state.worker_of_actor(actor).unwrap();
    let target = Target { actor: ActorId::managed(actor.0).unwrap(), incarnation: ActorIncarnation(0) };
    let at = ActorLocation { host: member(worker).actors, target };
    let mut actions = harness.handle(ControlEvent::ActorStarted { actor, worker, at });
    assert!(matches!(take_reply(&mut actions, ticket), Some(Ok(ControlReply::Created { .. }))));
    for incarnation in 0..2 {
        harness.handle(low_memory(actor, incarnation));
        assert_eq!(harness.actor(actor).state, ActorState::Restarting);
        let actions = harness.advance(1, &[agent(1, 1)], &[]);
        let is_start = |action: &&Action| matches!(action, Action::StartActor { .. });
        assert_eq!(actions.iter().filter(is_start).count(), 1, "after the back-off");
    }
    harness.handle(low_memory(actor, 2));
    let info = harness.actor(actor);
    assert_eq!(info.state, ActorState::Dead);
    let cause = info.cause.unwrap();
    assert!(cause.contains("the worker is full") && cause.contains("more than 2 times"), "{cause}");
}
