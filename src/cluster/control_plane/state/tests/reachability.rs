//! Tests of silent nodes: unreachable, alive again, or dead.

use super::*;
use crate::cluster::model::{AlertKind, EventInfo, EventKind};

/// Two nodes, of which the second has been silent for this long, in milliseconds.
fn silent_for(ms: u64) -> (Harness, JobId) {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.pass(ms, job);
    (harness, job)
}

impl Harness {
    /// Advances the time tick by tick, with heartbeats of the first node and of the driver.
    fn pass(&mut self, ms: u64, job: JobId) -> Vec<Action> {
        let until = self.now + ms;
        let mut actions = Vec::new();
        while self.now < until {
            self.now = until.min(self.now + 250);
            actions.extend(self.handle(ControlEvent::NodeHeartbeat { node: agent(1, 1) }));
            actions.extend(self.handle(ControlEvent::JobHeartbeat { job }));
            actions.extend(self.handle(ControlEvent::Tick));
        }
        actions
    }

    /// Event for the driver about the workers of a node.
    pub(super) fn reachability(&self, job: JobId, node: u64, is_reachable: bool) -> Action {
        let workers = self.state.nodes[&NodeId(node)].workers.iter();
        let workers = workers.map(|worker| member(*worker).tasks).collect();
        Action::NotifyDriver { job, event: JobEvent::Reachability { workers, is_reachable } }
    }

    fn listed(&self, node: u64) -> NodeState {
        self.state.nodes().iter().find(|info| info.node_id == NodeId(node)).unwrap().state
    }

    /// Kinds and texts of the events about a node itself since it joined.
    fn events_of(&self, node: u64) -> Vec<(EventKind, String)> {
        let of_node = |event: &&EventInfo| event.node_id == Some(NodeId(node));
        let events = self.state.events.iter().filter(of_node).map(|event| (event.kind, event.text.clone()));
        events.filter(|(kind, _)| !matches!(kind, EventKind::NodeJoined | EventKind::ActorDied)).collect()
    }

    fn unreachable_alerts(&self) -> Vec<String> {
        let alerts = self.state.alerts().into_iter();
        alerts.filter(|alert| alert.kind == AlertKind::UnreachableNode).map(|alert| alert.text).collect()
    }
}

#[test]
fn silent_node_is_unreachable_after_three_seconds_and_dead_after_ten() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, _) = harness.spawn(job, on(2, plain()));
    assert_eq!(harness.pass(2999, job), []);
    assert_eq!((harness.listed(2), harness.unreachable_alerts()), (NodeState::Alive, Vec::new()));
    let version = harness.state.version();
    let silent = harness.reachability(job, 2, false);
    assert_eq!(harness.pass(1, job), [silent], "nothing that runs there is touched");
    assert_eq!(harness.listed(2), NodeState::Unreachable);
    assert!(harness.state.version() > version, "lists have changed");
    let unreachable = (EventKind::NodeUnreachable, "no heartbeat for 3 s".to_owned());
    assert_eq!(harness.events_of(2), std::slice::from_ref(&unreachable));
    let alert = "node 0000000000000002 (n2 at 127.0.0.1:1): no heartbeat for 3 s; \
                 it gets no new actors and tasks, and is dead after 10 s";
    assert_eq!(harness.unreachable_alerts(), [alert]);
    assert_eq!(harness.actor(actor).state, ActorState::Alive);

    assert_eq!(harness.pass(6999, job), []);
    assert_eq!((harness.listed(2), harness.actor(actor).state), (NodeState::Unreachable, ActorState::Alive));
    harness.pass(1, job);
    assert_eq!((harness.listed(2), harness.listed(1)), (NodeState::Dead, NodeState::Alive));
    harness.expect_dead(actor, "node lost: no heartbeat for 10 s");
    let dead = (EventKind::NodeDead, "no heartbeat for 10 s".to_owned());
    assert_eq!((harness.events_of(2), harness.unreachable_alerts()), (vec![unreachable, dead], Vec::new()));
}

#[test]
fn unreachable_node_gets_no_actors_and_requests_for_it_wait_until_it_is_back_or_dead() {
    for returns in [true, false] {
        let (mut harness, job) = silent_for(3000);
        for _ in 0..4 {
            let (_, worker) = harness.spawn(job, cpus(1.0));
            assert_eq!(harness.node_of(worker), 1);
        }
        let waits = [harness.place(job, cpus(1.0)), harness.place(job, on(2, plain()))];
        let [any, pinned] = waits.map(|request| request.expect_pending());
        assert_eq!(harness.reasons()[1], "node 0000000000000002 is unreachable");
        match returns {
            true => {
                let mut actions = harness.handle(ControlEvent::NodeHeartbeat { node: agent(2, 1) });
                for ticket in [any, pinned] {
                    let actor = take_placed(&mut actions, ticket);
                    let worker = harness.state.worker_of_actor(actor).unwrap();
                    assert_eq!(harness.node_of(worker), 2);
                }
            }
            false => {
                let mut actions = harness.pass(7000, job);
                assert_eq!(take_reply(&mut actions, any), None);
                let why = "node 0000000000000002 is dead: no heartbeat for 10 s".to_owned();
                assert_eq!(take_reply(&mut actions, pinned), Some(Err(ControlError::Infeasible(why))));
            }
        }
    }
}

#[test]
fn request_waits_while_the_only_node_is_unreachable() {
    let (mut harness, job) = Harness::with_nodes(1);
    harness.advance(3, &[], &[job]);
    let ticket = harness.place(job, plain()).expect_pending();
    assert_eq!(harness.reasons(), ["no node that takes work is reachable"]);
    let mut actions = harness.handle(ControlEvent::NodeHeartbeat { node: agent(1, 1) });
    take_placed(&mut actions, ticket);
}

#[test]
fn heartbeat_or_rejoin_makes_a_node_reachable_again_in_its_earlier_state() {
    for (drains, rejoins) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut harness, job) = Harness::with_nodes(2);
        let (actor, worker) = harness.spawn(job, on(2, plain()));
        if drains {
            harness.handle(ControlEvent::NodeDrain { node: NodeId(2) });
        }
        harness.pass(9000, job);
        assert_eq!(harness.listed(2), NodeState::Unreachable);
        let actions = match rejoins {
            true => {
                let class = "Plain".to_owned();
                let report = WorkerReport {
                    worker,
                    job,
                    detached: None,
                    member: Some(member(worker)),
                    pid: 7,
                    suspended: false,
                    actors: vec![(actor, class, location(worker, actor))],
                    tasks: Vec::new(),
                };
                harness.rejoin(node_descriptor(2, 4.0, 1), vec![report])
            }
            false => harness.handle(ControlEvent::NodeHeartbeat { node: agent(2, 1) }),
        };
        assert_eq!(actions, [harness.reachability(job, 2, true)]);
        let expected = if drains { NodeState::Draining } else { NodeState::Alive };
        assert_eq!((harness.listed(2), harness.actor(actor).state), (expected, ActorState::Alive));
        let kinds: Vec<EventKind> = harness.events_of(2).into_iter().map(|(kind, _)| kind).collect();
        let silence = [EventKind::NodeUnreachable, EventKind::NodeReachable];
        assert!(kinds.ends_with(&silence), "{kinds:?}");
        assert_eq!(harness.unreachable_alerts(), [] as [&str; 0]);
        // It has a whole lease again.
        harness.pass(2999, job);
        assert_eq!(harness.listed(2), expected);
        harness.pass(7000, job);
        assert_eq!(harness.listed(2), NodeState::Unreachable);
    }
}

#[test]
fn node_can_be_drained_while_it_is_unreachable() {
    let (mut harness, job) = silent_for(3000);
    harness.handle(ControlEvent::NodeDrain { node: NodeId(2) });
    assert_eq!(harness.listed(2), NodeState::Unreachable);
    harness
        .place(job, on(2, plain()))
        .expect_error(ControlError::Infeasible, "node 0000000000000002 is draining and accepts no new work");
    harness.handle(ControlEvent::NodeHeartbeat { node: agent(2, 1) });
    assert_eq!(harness.listed(2), NodeState::Draining);
}

#[test]
fn actors_that_wait_for_a_worker_of_an_unreachable_node_move_to_another() {
    let mut harness = Harness::new();
    (1..=2).for_each(|node| drop(harness.join(node_descriptor(node, 4.0, 1))));
    let job = harness.start_job();
    let starting = harness.provision(job, 2);
    let ticket = harness.place(job, plain()).expect_pending();
    harness.provision_and_start(job, 1);
    let mut actions = harness.pass(3000, job);
    let actor = take_placed(&mut actions, ticket);
    assert_eq!(harness.node_of(harness.state.worker_of_actor(actor).unwrap()), 1);
    // Its worker is not stopped: it may become ready once the node is back.
    assert_eq!((actions, harness.state.worker(starting[0])), (Vec::new(), Some((NodeId(2), job))));
}

#[test]
fn driver_learns_which_of_its_workers_are_on_an_unreachable_node() {
    let (mut harness, job) = silent_for(3000);
    let lists = |harness: &mut Harness| {
        let descriptor = harness.state.job_descriptor(job).unwrap().clone();
        let request = harness.ask(|ticket| ControlEvent::JobStarted { ticket, job: Some(job), descriptor });
        let Some(Ok(ControlReply::Job { workers, .. })) = request.reply else { panic!("{request:?}") };
        workers.iter().map(|worker| (worker.node.0, worker.is_reachable)).collect::<Vec<_>>()
    };
    // A driver that rejoins may have missed the event.
    assert_eq!(lists(&mut harness), [(1, true), (2, false)]);
    harness.handle(ControlEvent::NodeHeartbeat { node: agent(2, 1) });
    assert_eq!(lists(&mut harness), [(1, true), (2, true)]);
}

#[test]
fn driver_is_not_started_on_an_unreachable_node() {
    let (mut harness, _) = silent_for(3000);
    harness.handle(ControlEvent::OwnAgent { agent: agent(2, 1) });
    assert_eq!(harness.state.own_node(), None);
    let descriptor = JobDescriptor { driver: None, runs_on: Some(NodeId(2)), ..job_descriptor(0) };
    let refused = harness.ask(|ticket| ControlEvent::JobSubmitted { ticket, descriptor });
    refused.expect_error(
        ControlError::Unknown,
        "the node for the job's driver has left the cluster, is draining, or is unreachable",
    );
}

#[test]
fn second_in_which_the_head_did_not_run_does_not_count_against_nodes() {
    let (mut harness, job) = silent_for(2000);
    harness.now += 1250;
    harness.handle(ControlEvent::Tick);
    assert_eq!(harness.listed(2), NodeState::Alive);
    // One tick of the gap counts: 2 s before it, a tick, and three more make 3 s.
    harness.pass(749, job);
    assert_eq!(harness.listed(2), NodeState::Alive);
    harness.pass(1, job);
    assert_eq!(harness.listed(2), NodeState::Unreachable);
}

#[test]
fn head_that_is_late_at_each_tick_still_notices_silent_members() {
    let (mut harness, _) = Harness::with_nodes(1);
    let begun = harness.now;
    while harness.listed(1) != NodeState::Unreachable {
        harness.now += 1000;
        harness.handle(ControlEvent::Tick);
    }
    assert_eq!(harness.now - begun, 12_000);
}

#[test]
fn times_are_settings() {
    let mut harness = Harness::new();
    let (node_unreachable_after, node_lease) = (Duration::from_secs(2), Duration::from_secs(5));
    harness.state = ClusterState::new(Settings { node_unreachable_after, node_lease, ..Settings::default() });
    harness.join(node_descriptor(1, 4.0, 1));
    harness.advance(2, &[], &[]);
    assert_eq!(harness.events_of(1), [(EventKind::NodeUnreachable, "no heartbeat for 2 s".to_owned())]);
    harness.advance(3, &[], &[]);
    assert_eq!(harness.listed(1), NodeState::Dead);
}

#[test]
fn node_that_has_not_rejoined_a_restarted_head_is_rejoining_and_not_unreachable() {
    let (mut harness, job) = Harness::with_nodes(2);
    let records = (1..=2).map(|node| Record::Node {
        descriptor: node_descriptor(node, 4.0, 1),
        joined_ms: 1,
        draining: false,
    });
    harness.state = ClusterState::new(Settings::default());
    harness.handle(ControlEvent::Restored(records.collect()));
    harness.join(node_descriptor(1, 4.0, 1));
    harness.pass(9000, job);
    assert_eq!((harness.listed(1), harness.listed(2)), (NodeState::Alive, NodeState::Rejoining));
    harness.join(node_descriptor(2, 4.0, 1));
    assert_eq!(harness.listed(2), NodeState::Alive);
    harness.pass(3000, job);
    assert_eq!(harness.listed(2), NodeState::Unreachable);
}
