//! Tests of the node on which managed actors restart.

use super::rejoin::{recorded, worker_report};
use super::*;
use crate::spec::RestartPlace;

fn placed(place: RestartPlace, spec: ActorSpec) -> ActorSpec {
    restartable(at_most(5).on(place), spec)
}

/// Kills the actor's worker, and starts its replacement; returns the place of the next incarnation, if it has one.
fn restart(harness: &mut Harness, actor: ActorKey, worker: WorkerId, incarnation: u32) -> Option<WorkerId> {
    let mut actions = harness.handle(worker_ended(worker, "killed by signal 9", true));
    for replacement in started(&actions) {
        actions.extend(harness.ready(replacement));
    }
    let (next, _) = starts(&actions).first().copied()?;
    harness.created(actor, next, incarnation);
    Some(next)
}

#[test]
fn actor_restarts_on_another_node_each_time() {
    let (mut harness, job) = Harness::with_nodes(3);
    let (actor, mut worker) = harness.spawn_managed(job, placed(RestartPlace::OtherNode, cpus(1.0)));
    for incarnation in 1..6 {
        let next = restart(&mut harness, actor, worker, incarnation).unwrap();
        let before = harness.state.node_of_worker(worker);
        assert_ne!(harness.state.node_of_worker(next), before);
        worker = next;
    }
    let free: f64 = (1..=3).map(|node| harness.free_cpus(node)).sum();
    assert_eq!(free, 11.0);
    harness.end_job(job);
    assert_eq!((1..=3).map(|node| harness.free_cpus(node)).sum::<f64>(), 12.0);
}

#[test]
fn actor_waits_for_another_node_with_its_reason() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn_managed(job, placed(RestartPlace::OtherNode, cpus(1.0)));
    assert_eq!(restart(&mut harness, actor, worker, 1), None);
    let why = format!("no other than node {}, which it has left, has all of that", NodeId(1));
    assert!(harness.reasons()[0].contains(&why), "{:?}", harness.reasons());
    let actions = harness.join(node_descriptor(2, 4.0, 1));
    assert_eq!(starts(&actions), []);
    let mut actions = Vec::new();
    for worker in harness.provision(job, 2) {
        actions.extend(harness.ready(worker));
    }
    let [(next, 1)] = starts(&actions)[..] else { panic!("{actions:?}") };
    harness.created(actor, next, 1);
    // Back to the first node, which it may use again.
    assert_eq!(restart(&mut harness, actor, next, 2).map(|worker| harness.node_of(worker)), Some(1));
}

#[test]
fn full_node_is_waited_for_with_a_reason() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, placed(RestartPlace::OtherNode, cpus(3.0)));
    let (other, _) = harness.spawn(job, on(3 - harness.node_of(worker), cpus(2.0)));
    assert_eq!(restart(&mut harness, actor, worker, 1), None);
    assert!(harness.reasons()[0].starts_with("it restarts, since"), "{:?}", harness.reasons());
    assert!(harness.reasons()[0].contains("but for node"), "{:?}", harness.reasons());
    assert_eq!(starts(&harness.handle(actor_ended(other, "done"))).len(), 1);
}

#[test]
fn actor_restarts_on_its_node_alone() {
    let (mut harness, job) = Harness::with_nodes(3);
    let (actor, mut worker) = harness.spawn_managed(job, placed(RestartPlace::SameNode, plain()));
    let node = harness.node_of(worker);
    for incarnation in 1..4 {
        worker = restart(&mut harness, actor, worker, incarnation).unwrap();
        assert_eq!(harness.node_of(worker), node);
    }
    let actions =
        harness.handle(ControlEvent::NodeLeft { node: agent(node, 1), cause: "it left".to_owned() });
    assert_eq!(starts(&actions), []);
    assert!(harness.reasons()[0].contains("is dead: it left"), "{:?}", harness.reasons());
}

#[test]
fn restarted_head_knows_the_node_of_the_last_incarnation() {
    for (place, expected) in [(RestartPlace::OtherNode, 0), (RestartPlace::SameNode, 1)] {
        let (recorder, job, actor, worker) = recorded(0, placed(place, plain()));
        let (mut harness, _) = recorder.restart();
        let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![worker_report(job, worker, &[])]);
        assert_eq!(starts(&actions).len(), expected, "{place:?}");
        assert_eq!(harness.actor(actor).state, ActorState::Restarting);
    }
}

#[test]
fn actor_bound_to_the_node_that_it_must_leave_waits_with_its_reason() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, placed(RestartPlace::OtherNode, on(1, plain())));
    assert_eq!(restart(&mut harness, actor, worker, 1), None);
    assert!(harness.reasons()[0].contains("which it has left"), "{:?}", harness.reasons());
}
