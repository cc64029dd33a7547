//! Tests of nodes: join, drain, loss and rejoin.

use super::*;
use crate::cluster::model::{NodeReport, WorkerReport};

#[test]
fn own_node_is_that_of_the_present_agent_and_the_previous_one_is_lost() {
    let mut harness = Harness::new();
    let claims = |node, incarnation| NodeDescriptor {
        agent: agent(node, incarnation),
        is_head: true,
        ..node_descriptor(node, 4.0, 1)
    };
    let is_head = |harness: &Harness| {
        let nodes = harness.state.nodes().into_iter().filter(|node| node.state != NodeState::Dead);
        nodes.map(|node| (node.node_id.0, node.is_head)).collect::<Vec<_>>()
    };
    assert_eq!(harness.state.own_node(), None);
    harness.handle(ControlEvent::OwnAgent { agent: agent(1, 1) });
    assert_eq!(harness.state.own_node(), None);
    harness.join(claims(2, 1));
    harness.join(node_descriptor(1, 4.0, 1));
    assert_eq!(is_head(&harness), [(1, true), (2, false)]);
    assert_eq!(harness.state.own_node().map(|descriptor| descriptor.id()), Some(NodeId(1)));
    // The agent restarted, with another host.
    harness.handle(ControlEvent::OwnAgent { agent: agent(3, 1) });
    assert_eq!((is_head(&harness), harness.state.own_node()), (vec![(2, false)], None));
    harness.join(claims(3, 1));
    assert_eq!(is_head(&harness), [(2, false), (3, true)]);
}

fn report(worker: WorkerId, job: JobId, actors: &[ActorKey]) -> WorkerReport {
    let actor = |actor: &ActorKey| (*actor, "Plain".to_owned(), location(worker, *actor));
    let actors = actors.iter().map(actor).collect();
    let (suspended, tasks) = (false, Vec::new());
    WorkerReport {
        worker,
        job,
        detached: None,
        member: Some(member(worker)),
        pid: 7,
        suspended,
        actors,
        tasks,
    }
}

#[test]
fn node_with_an_expired_lease_is_dead_with_everything_on_it() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (one, _) = harness.spawn(job, cpus(1.0));
    let (other, worker) = harness.spawn(job, cpus(1.0));
    let heartbeats = [agent(1, 1)];
    let unreachable = harness.reachability(job, 2, false);
    assert_eq!(harness.advance(lease() - 1, &heartbeats, &[job]), [unreachable]);
    let actions = harness.advance(1, &heartbeats, &[job]);
    harness.expect_dead(other, "node lost: no heartbeat for 10 s");
    assert_eq!(harness.actor(one).state, ActorState::Alive);
    let end = End::new(EndReason::NodeLost, "node lost: no heartbeat for 10 s");
    let gone = JobEvent::WorkerDown { node: NodeId(2), worker, member: Some(member(worker)), end };
    assert_eq!(driver_events(&actions), [&gone, &JobEvent::NodeGone { agent: agent(2, 1) }]);
    assert_eq!(harness.state.node_state(NodeId(2)), Some(NodeState::Dead));
    assert_eq!(harness.state.nodes()[1].cause.as_deref(), Some("no heartbeat for 10 s"));
    assert!(!harness.state.is_member(agent(2, 1)));
}

#[test]
fn drivers_are_notified_of_new_usable_nodes() {
    let (mut harness, job) = Harness::with_nodes(1);
    let descriptor = node_descriptor(2, 4.0, 1);
    let actions = harness.join(descriptor.clone());
    assert_eq!(driver_events(&actions), [&JobEvent::NodeUp(descriptor)]);
    assert_eq!(driver_events(&harness.join(node_descriptor(3, 4.0, 0))), [] as [&JobEvent; 0]);
    let request = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(job),
        descriptor: job_descriptor(1),
    });
    let Some(Ok(ControlReply::Job { nodes, workers, .. })) = request.reply else { panic!("{request:?}") };
    assert_eq!(nodes.iter().map(|node| node.id().0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(workers, [worker_entry(1, WorkerId(1))]);
}

#[test]
fn later_incarnation_of_a_node_replaces_the_earlier_one() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, _) = harness.spawn(job, cpus(1.0));
    let descriptor = NodeDescriptor { agent: agent(1, 2), ..node_descriptor(1, 8.0, 1) };
    harness.join(descriptor);
    harness.expect_dead(actor, "node lost: its agent restarted");
    assert_eq!(harness.free_cpus(1), 8.0);
    // A report of the earlier incarnation arrives late.
    harness.join(node_descriptor(1, 4.0, 1));
    // A late goodbye must not end the later incarnation either.
    harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: String::new() });
    assert_eq!(harness.free_cpus(1), 8.0);
    assert_eq!(harness.state.nodes().len(), 1);
}

#[test]
fn rejoining_node_keeps_what_it_reports_and_loses_the_rest() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 2));
    let job = harness.start_job();
    let workers = harness.provision_and_start(job, 1);
    let spawned = [(); 4].map(|()| harness.spawn(job, cpus(1.0)));
    let survivor = spawned.iter().find(|(_, worker)| *worker == workers[0]).unwrap().0;
    let unreported = harness.place(job, plain()).expect_placed();
    assert_eq!(harness.state.worker_of_actor(unreported), Some(workers[0]));
    let unexpected = report(WorkerId(99), job, &[]);
    let known = report(workers[0], job, &[survivor, unreported, ActorKey(77)]);
    let actions = harness.rejoin(node_descriptor(1, 4.0, 2), vec![known, unexpected]);
    for (actor, _) in spawned.into_iter().filter(|(actor, _)| *actor != survivor) {
        harness.expect_dead(actor, "it was gone when its node rejoined");
    }
    assert_eq!(harness.actor(survivor).state, ActorState::Alive);
    assert_eq!(harness.actor(unreported).state, ActorState::Alive);
    assert_eq!(harness.free_cpus(1), 3.0);
    assert_eq!(stopped(&actions), [workers[1], WorkerId(99)]);
    assert_eq!(started(&actions).len(), 1);
    let at = location(workers[0], ActorKey(77));
    let unknown = Action::StopActor { node: NodeId(1), worker: workers[0], actor: ActorKey(77), at };
    assert!(actions.contains(&unknown));
}

#[test]
fn missed_stop_commands_are_repeated_when_the_node_rejoins() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, plain());
    let submitted = harness.ask(|ticket| {
        let descriptor = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_descriptor(0) };
        ControlEvent::JobSubmitted { ticket, descriptor }
    });
    let Some(Ok(ControlReply::Job { job: other, .. })) = submitted.reply else { panic!("{submitted:?}") };
    let message = String::new();
    harness.handle(ControlEvent::JobEnded { job: other, state: JobState::Stopped, exit_code: None, message });
    harness.ask(|ticket| ControlEvent::Kill { ticket, actor });
    let descriptor = node_descriptor(1, 4.0, 1);
    let workers = vec![report(worker, job, &[actor])];
    let (jobs, drivers) = (vec![job, other], vec![other]);
    let actions = harness.handle(ControlEvent::NodeJoined(NodeReport {
        workers,
        jobs,
        drivers,
        ..NodeReport::idle(descriptor)
    }));
    let node = NodeId(1);
    let at = location(worker, actor);
    let stops = [
        Action::StopActor { node, worker, actor, at },
        Action::ReleaseJob { job: other, nodes: [node].into() },
        Action::StopDriver { node, job: other },
    ];
    assert_eq!(actions, stops);
}

#[test]
fn workers_of_a_dead_node_are_stopped_when_it_rejoins() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, plain());
    harness.advance(lease(), &[], &[job]);
    harness.expect_dead(actor, "node lost: no heartbeat for 10 s");
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), vec![report(worker, job, &[actor])]);
    assert_eq!(stopped(&actions), [worker]);
    assert_eq!(harness.state.nodes().len(), 1);
    assert!(harness.state.is_member(agent(1, 1)));
    assert_eq!(harness.state.node_descriptor(NodeId(1)), Some(&node_descriptor(1, 4.0, 1)));
}

#[test]
fn draining_node_accepts_no_work_and_stops_after_its_jobs() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (actor, worker) = harness.spawn(job, on(1, cpus(1.0)));
    let actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(1) });
    assert!(!actions.contains(&Action::StopNode { node: NodeId(1) }));
    for _ in 0..3 {
        let (_, worker) = harness.spawn(job, plain());
        assert_eq!(harness.node_of(worker), 2);
    }
    let why = "node 0000000000000001 is draining and accepts no new work";
    harness.place(job, on(1, plain())).expect_error(ControlError::Infeasible, why);
    assert_eq!(started(&harness.ended(worker)), []);
    harness.expect_dead(actor, "exit code 1");
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Draining));
    let other = harness.start_job();
    assert_eq!(harness.provision(other, 1), []);

    let (mut harness, job) = Harness::with_nodes(1);
    harness.handle(ControlEvent::NodeDrain { node: NodeId(1) });
    let actions = harness.end_job(job);
    assert_eq!(actions.last(), Some(&Action::StopNode { node: NodeId(1) }));
}

#[test]
fn unassigned_actors_of_a_lost_or_draining_node_are_rescheduled() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    harness.provision_and_start(job, 1);
    let dedicated = harness.place(job, detached(cpus(4.0)));
    assert_eq!(started(&dedicated.actions).len(), 1);
    harness.join(node_descriptor(2, 4.0, 1));
    let workers = harness.provision(job, 2);
    let on_draining = harness.place(job, on(2, cpus(1.0))).expect_pending();
    let any = harness.place(job, cpus(1.0)).expect_pending();
    harness.join(node_descriptor(3, 4.0, 1));
    harness.provision_and_start(job, 3);
    let mut actions = harness.handle(ControlEvent::NodeDrain { node: NodeId(2) });
    take_placed(&mut actions, any);
    assert!(matches!(take_reply(&mut actions, on_draining), Some(Err(ControlError::Infeasible(_)))));
    assert_eq!(harness.ready(workers[0]).len(), 1);
    let actions = harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: String::new() });
    // Node 3 holds one CPU for the actor that was evicted from node 2.
    assert_eq!(started(&actions), []);
    assert_eq!(harness.reasons(), ["it wants cpu 4, and the most that one node has free is cpu 3"]);
}

#[test]
fn gap_in_the_head_s_own_clock_expires_no_lease() {
    let (mut harness, job) = Harness::with_nodes(1);
    // Far longer than a lease, in one step: the head was suspended.
    harness.now += 60_000;
    assert_eq!(harness.handle(ControlEvent::Tick), []);
    assert_eq!(harness.state.job_state(job), Some(JobState::Running));
    let unreachable = harness.reachability(job, 1, false);
    assert_eq!(harness.advance(lease() - 1, &[], &[]), [unreachable]);
    harness.handle(ControlEvent::NodeHeartbeat { node: agent(1, 1) });
    harness.advance(1, &[], &[]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Failed));
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Alive));
    harness.advance(lease(), &[], &[]);
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Dead));
    assert_eq!(harness.state.next_deadline(), None);
}

#[test]
fn history_is_bounded_per_table() {
    let mut harness = Harness::new();
    harness.state = ClusterState::new(Settings { history_max: 3, ..Settings::default() });
    for round in 1..=5 {
        harness.join(node_descriptor(round, 4.0, 1));
        let job = harness.start_job();
        harness.provision_and_start(job, round);
        harness.spawn(job, cpus(1.0));
        let actions = harness.end_job(job);
        let deleted = actions.iter().filter(|action| matches!(action, Action::Delete(RecordKey::Job(_))));
        assert_eq!(deleted.count(), usize::from(round > 3));
        harness.handle(ControlEvent::NodeLeft { node: agent(round, 1), cause: String::new() });
    }
    let state = &harness.state;
    let lists = [state.nodes().len(), state.jobs().len(), state.workers().len(), state.actors().len()];
    assert_eq!(lists, [3; 4]);
    assert_eq!(state.schedule.shapes(), 1);
}

#[test]
fn dead_agent_incarnations_are_forgotten() {
    let (mut harness, _) = Harness::with_nodes(2);
    let forget_agent = |node, incarnation| Action::ForgetAgent { agent: agent(node, incarnation) };
    let left = harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: "it left".to_owned() });
    assert!(left.contains(&forget_agent(1, 1)));
    let later = NodeDescriptor { agent: agent(2, 2), ..node_descriptor(2, 4.0, 1) };
    let actions = harness.join(later);
    assert!(actions.contains(&forget_agent(2, 1)) && !actions.contains(&forget_agent(2, 2)));
    assert!(harness.advance(lease() + 1, &[], &[]).contains(&forget_agent(2, 2)));
}

#[test]
fn starting_worker_survives_a_rejoin_of_its_node() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 2));
    let job = harness.start_job();
    let [ready, starting] = harness.provision(job, 1)[..] else { panic!("there are not two") };
    harness.ready(ready);
    let starting_report = WorkerReport { member: None, pid: 0, ..report(starting, job, &[]) };
    let actions = harness.rejoin(node_descriptor(1, 4.0, 2), vec![report(ready, job, &[]), starting_report]);
    assert_eq!((stopped(&actions), started(&actions)), (Vec::new(), Vec::new()));
    assert_eq!(driver_events(&harness.ready(starting)).len(), 1);
    // A worker that the report lacks is gone.
    let actions = harness.rejoin(node_descriptor(1, 4.0, 2), vec![report(ready, job, &[])]);
    assert_eq!((stopped(&actions), started(&actions).len()), (vec![starting], 1));
}
