//! Tests of exclusive actors: no incarnation begins before the earlier one has certainly ended.

use super::rejoin::{recorded, worker_report};
use super::*;
use crate::config::LEASE_MARGIN_PARTS;

/// Silence after which a node is unreachable, in milliseconds.
const SILENCE_MS: u64 = 3_000;

fn exclusive(spec: ActorSpec) -> ActorSpec {
    restartable(at_most(3).exclusive(), spec)
}

/// Start of the lease that a command to create an incarnation names.
fn lease_of_start(actions: &[Action]) -> Option<u64> {
    actions.iter().find_map(|action| match action {
        Action::StartActor { lease, .. } => *lease,
        _ => None,
    })
}

impl Harness {
    fn heartbeat(&mut self, node: u64) -> Vec<Action> {
        self.handle(ControlEvent::NodeHeartbeat { node: agent(node, 1) })
    }

    /// Lets time pass in ticks, in which nodes send heartbeats.
    fn beats(&mut self, ms: u64, nodes: &[u64]) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..ms / 250 {
            self.now += 250;
            nodes.iter().for_each(|node| actions.extend(self.heartbeat(*node)));
            actions.extend(self.handle(ControlEvent::Tick));
        }
        actions
    }
}

#[test]
fn lease_ends_before_the_node_is_unreachable() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, exclusive(plain()));
    let (node, other) = match harness.node_of(worker) {
        1 => (1, 2),
        _ => (2, 1),
    };
    harness.heartbeat(node);
    let lease = harness.state.lease(agent(node, 1)).unwrap();
    let margin = Duration::from_millis(SILENCE_MS) / LEASE_MARGIN_PARTS;
    assert_eq!(lease.length + margin, Duration::from_millis(SILENCE_MS));
    assert!(lease.grace < margin);
    // With the silence, and not before, the actor moves.
    assert_eq!(starts(&harness.beats(SILENCE_MS - 250, &[other])), []);
    let actions = harness.beats(250, &[other]);
    let [(next, 1)] = starts(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(harness.node_of(next), other);
    assert_eq!(harness.state.lease(agent(node, 1)), None);
    // A command that names the earlier lease is void from here on.
    harness.now += 250;
    harness.heartbeat(node);
    assert!(harness.state.lease(agent(node, 1)).unwrap().since > lease.since);
    harness.created(actor, next, 1);
    assert_eq!(harness.handle(incarnation_ended(actor, 0, EndReason::LeaseExpired, "late")), []);
}

#[test]
fn commands_for_exclusive_actors_name_the_lease() {
    let (mut harness, job) = Harness::with_nodes(1);
    let since = harness.state.lease(agent(1, 1)).unwrap().since;
    let request = harness.place_managed(job, restartable(at_most(1), plain()));
    assert_eq!((starts(&request.actions).len(), lease_of_start(&request.actions)), (1, None));
    let request = harness.place_managed(job, exclusive(plain()));
    assert_eq!(lease_of_start(&request.actions), Some(since));
}

#[test]
fn command_under_an_earlier_lease_is_repeated_once_the_node_is_reachable() {
    let (mut harness, job) = Harness::with_nodes(1);
    let request = harness.place_managed(job, exclusive(plain()));
    let since = lease_of_start(&request.actions).unwrap();
    assert_eq!(starts(&harness.beats(SILENCE_MS, &[])), []);
    // The agent creates nothing under the earlier lease, and reports no end.
    let actions = harness.heartbeat(1);
    assert!(matches!(starts(&actions)[..], [(_, 0)]), "{actions:?}");
    assert!(lease_of_start(&actions).unwrap() > since);
}

#[test]
fn actor_of_a_node_that_left_waits_for_the_end_of_its_lease() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, exclusive(plain()));
    let (plain, _) =
        harness.spawn_managed(job, restartable(at_most(0), on(harness.node_of(worker), plain())));
    let node = harness.node_of(worker);
    harness.heartbeat(node);
    harness.now += 500;
    let actions =
        harness.handle(ControlEvent::NodeLeft { node: agent(node, 1), cause: "it left".to_owned() });
    assert_eq!(starts(&actions), []);
    let why = "it restarts, since node lost: it left; the lease of its earlier incarnation ends in 2.5 s at the latest";
    assert_eq!(harness.actor(actor).cause.as_deref(), Some(why));
    assert_eq!(harness.actor(plain).state, ActorState::Restarting);
    assert_eq!(starts(&harness.beats(2_250, &[1, 2])), []);
    assert_eq!(starts(&harness.beats(250, &[1, 2])).len(), 1);
}

#[test]
fn report_of_the_end_restarts_an_actor_without_a_wait() {
    // Its lease ended, but the head has heard of its node meanwhile; or its worker was killed.
    for kills in [false, true] {
        let (mut harness, job) = Harness::with_nodes(2);
        let (actor, worker) = harness.spawn_managed(job, exclusive(plain()));
        let actions = match kills {
            true => harness.handle(worker_ended(worker, "killed by signal 9", true)),
            false => {
                harness.handle(incarnation_ended(actor, 0, EndReason::LeaseExpired, "its lease ran out"))
            }
        };
        assert_eq!(starts(&actions)[0].1, 1);
        // It does not count.
        assert!(harness.state.managed[&actor].failures.is_empty());
    }
}

#[test]
fn drain_stops_an_actor_and_moves_it_once_it_has_ended() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, exclusive(cpus(1.0)));
    let node = harness.node_of(worker);
    let actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(node) });
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![]));
    // Its handler runs for long, under a lease that is renewed.
    assert_eq!(starts(&harness.beats(8_000, &[1, 2])), []);
    assert_eq!((harness.free_cpus(node), harness.actor(actor).state), (3.0, ActorState::Alive));
    // A command that was lost is repeated when the node rejoins.
    let report = worker_report(job, worker, &[(actor, 0)]);
    let actions = harness.rejoin(node_descriptor(node, 4.0, 1), vec![report]);
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![]));
    let actions = harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was stopped"));
    let [(next, 1)] = starts(&actions)[..] else { panic!("{actions:?}") };
    assert_ne!(harness.node_of(next), node);
    assert_eq!(harness.free_cpus(node), 4.0);
}

#[test]
fn drain_waits_for_the_constructor_of_an_actor() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (_, actor, worker) = harness.start_managed(job, exclusive(plain()));
    let actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(harness.node_of(worker)) });
    assert_eq!((stops(&actions), starts(&actions)), (vec![], vec![]));
    assert_eq!(stops(&harness.created(actor, worker, 0)), [(worker, 0)]);
    let actions = harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was stopped"));
    assert_eq!(starts(&actions)[0].1, 1);
}

#[test]
fn kill_ends_an_actor_that_is_being_replaced() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn_managed(job, exclusive(plain()));
    harness.handle(ControlEvent::NodeDrain { node: NodeId(harness.node_of(worker)) });
    harness.kill(actor);
    harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was killed"));
    harness.expect_gone(actor, EndReason::Killed, "it was killed");
}

#[test]
fn kill_of_a_worker_holds_up_its_exclusive_actors_until_it_has_ended() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (target, worker) = harness.spawn_managed(job, on(1, restartable(at_most(5), plain())));
    let (actor, _) = harness.spawn_managed(job, on(1, exclusive(plain())));
    let request = harness.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor: target });
    let replacement = started(&request.actions)[0];
    assert_eq!(starts(&harness.ready(replacement)), []);
    let cause = harness.actor(actor).cause.unwrap();
    assert!(
        cause.ends_with(&format!("its earlier worker {worker} on node {} has not ended", NodeId(1))),
        "{cause}"
    );
    let reports = vec![worker_report(job, worker, &[(actor, 0)]), worker_report(job, replacement, &[])];
    assert_eq!(starts(&harness.rejoin(node_descriptor(1, 4.0, 1), reports)), []);
    let actions = harness.handle(worker_ended(worker, "it was stopped", false));
    assert_eq!(starts(&actions), [(replacement, 1)]);
}

#[test]
fn siblings_and_parents_are_replaced_once_they_have_ended() {
    let (mut harness, job) = Harness::with_nodes(1);
    let parent = ActorSpec { supervision: crate::spec::Supervision::OneForAll, ..exclusive(plain()) };
    let (parent, worker) = harness.spawn_managed(job, parent);
    let child = |spec| ActorSpec { parent: Some((parent, ActorIncarnation(0))), ..spec };
    let (failing, _) = harness.spawn_managed(job, child(restartable(at_most(1), plain())));
    let (sibling, _) = harness.spawn_managed(job, child(exclusive(plain())));
    let actions = harness.panics(failing, 0);
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![]));
    let actions = harness.handle(incarnation_ended(sibling, 0, EndReason::Killed, "it was stopped"));
    assert_eq!(starts(&actions), [(worker, 1)]);
    harness.created(sibling, worker, 1);
    harness.after(100);
    harness.created(failing, worker, 1);
    // The child fails for good, and its parent with it.
    let actions = harness.panics(failing, 1);
    assert!(stops(&actions).contains(&(worker, 0)) && starts(&actions).is_empty(), "{actions:?}");
    harness.handle(incarnation_ended(parent, 0, EndReason::Killed, "it was stopped"));
    assert_eq!(harness.state.managed[&parent].failures.len(), 1);
    assert_eq!(starts(&harness.after(100)), [(worker, 1)]);
}

#[test]
fn restarted_head_waits_for_a_lease_that_it_cannot_know() {
    let (recorder, job, actor, worker) = recorded(0, exclusive(plain()));
    let (mut harness, _) = recorder.restart();
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![worker_report(job, worker, &[])]);
    assert_eq!((starts(&actions), harness.actor(actor).state), (vec![], ActorState::Restarting));
    assert_eq!(starts(&harness.beats(SILENCE_MS - 250, &[1])), []);
    assert_eq!(starts(&harness.beats(250, &[1])), [(worker, 1)]);
}

#[test]
fn restarted_head_waits_for_the_end_of_an_earlier_incarnation_that_is_reported() {
    let (recorder, job, actor, worker) = recorded(1, exclusive(plain()));
    let (mut harness, _) = recorder.restart();
    let report = worker_report(job, worker, &[(actor, 0)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    assert_eq!((stops(&actions), starts(&actions)), (vec![(worker, 0)], vec![]));
    assert_eq!(starts(&harness.beats(2 * SILENCE_MS, &[1])), []);
    let actions = harness.handle(incarnation_ended(actor, 0, EndReason::Killed, "it was stopped"));
    assert_eq!(starts(&actions), [(worker, 2)]);
}

#[test]
fn restarted_head_replaces_an_incarnation_that_ended_while_it_was_away() {
    let (mut recorder, job, actor, worker) = recorded(0, exclusive(plain()));
    recorder.record_event(ControlEvent::NodeDrain { node: NodeId(1) });
    let (mut harness, _) = recorder.restart();
    let end = End::new(EndReason::Killed, "it was stopped");
    let report = NodeReport {
        workers: vec![worker_report(job, worker, &[])],
        ended: vec![(actor, ActorIncarnation(0), end)],
        ..NodeReport::idle(node_descriptor(1, 4.0, 1))
    };
    harness.handle(ControlEvent::NodeJoined(report));
    assert_eq!(harness.actor(actor).state, ActorState::Restarting);
}

#[test]
fn panic_of_an_exclusive_actor_restarts_it_as_any_other() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, _) = harness.spawn_managed(job, exclusive(plain()));
    harness.panics(actor, 0);
    assert_eq!(harness.actor(actor).state, ActorState::Restarting);
    assert!(harness.state.fenced.is_empty(), "its end was reported");
    let started = starts(&harness.after(100));
    assert!(matches!(started[..], [(_, 1)]), "{started:?}");
}
