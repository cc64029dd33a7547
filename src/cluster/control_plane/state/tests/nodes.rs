//! Nodes: how they come, drain, go, and come back.

use super::*;
use crate::cluster::model::{NodeReport, WorkerReport};

#[test]
fn the_head_s_own_node_is_its_agent_s_and_an_earlier_one_is_gone() {
    let mut lab = Lab::new();
    let claims =
        |node, life| NodeDescriptor { agent: agent(node, life), is_head: true, ..node_facts(node, 4.0, 1) };
    let is_head = |lab: &Lab| {
        let nodes = lab.state.nodes().into_iter().filter(|node| node.state != NodeState::Dead);
        nodes.map(|node| (node.node_id.0, node.is_head)).collect::<Vec<_>>()
    };
    assert_eq!(lab.state.own_node(), None);
    lab.handle(Event::OwnAgent { agent: agent(1, 1) });
    assert_eq!(lab.state.own_node(), None);
    lab.join(claims(2, 1));
    lab.join(node_facts(1, 4.0, 1));
    assert_eq!(is_head(&lab), [(1, true), (2, false)]);
    assert_eq!(lab.state.own_node().map(|facts| facts.id()), Some(NodeId(1)));
    // The agent was started anew, with another host.
    lab.handle(Event::OwnAgent { agent: agent(3, 1) });
    assert_eq!((is_head(&lab), lab.state.own_node()), (vec![(2, false)], None));
    lab.join(claims(3, 1));
    assert_eq!(is_head(&lab), [(2, false), (3, true)]);
}

fn report(worker: WorkerId, job: JobId, actors: &[ActorKey]) -> WorkerReport {
    let actor = |actor: &ActorKey| (*actor, "Plain".to_owned(), place(worker, *actor));
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
fn a_node_that_is_not_heard_of_is_dead_with_all_that_ran_on_it() {
    let (mut lab, job) = Lab::with_nodes(2);
    let (one, _) = lab.spawn(job, cpus(1.0));
    let (other, worker) = lab.spawn(job, cpus(1.0));
    let beats = [agent(1, 1)];
    assert_eq!(lab.pass(lease() - 1, &beats, &[job]), []);
    let actions = lab.pass(1, &beats, &[job]);
    lab.is_dead(other, "node lost: no heartbeat for 13 s");
    assert_eq!(lab.actor(one).state, ActorState::Alive);
    let cause = "node lost: no heartbeat for 13 s".to_owned();
    let gone = JobEvent::WorkerDown { node: NodeId(2), worker, member: Some(member(worker)), cause };
    assert_eq!(news(&actions), [&gone, &JobEvent::NodeGone { agent: agent(2, 1) }]);
    assert_eq!(lab.state.node_state(NodeId(2)), Some(NodeState::Dead));
    assert_eq!(lab.state.nodes()[1].cause.as_deref(), Some("no heartbeat for 13 s"));
    assert!(!lab.state.is_member(agent(2, 1)));
}

#[test]
fn drivers_are_told_of_new_nodes_that_take_work() {
    let (mut lab, job) = Lab::with_nodes(1);
    let facts = node_facts(2, 4.0, 1);
    let actions = lab.join(facts.clone());
    assert_eq!(news(&actions), [&JobEvent::NodeUp(facts)]);
    assert_eq!(news(&lab.join(node_facts(3, 4.0, 0))), [] as [&JobEvent; 0]);
    let asking = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(1) });
    let Some(Ok(Answer::Job { nodes, workers, .. })) = asking.answer else { panic!("{asking:?}") };
    assert_eq!(nodes.iter().map(|node| node.id().0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(workers, [working(1, WorkerId(1))]);
}

#[test]
fn a_later_life_of_a_node_replaces_the_earlier_one() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, _) = lab.spawn(job, cpus(1.0));
    let facts = NodeDescriptor { agent: agent(1, 2), ..node_facts(1, 8.0, 1) };
    lab.join(facts);
    lab.is_dead(actor, "node lost: its agent restarted");
    assert_eq!(lab.free_cpus(1), 8.0);
    // The earlier one is late.
    lab.join(node_facts(1, 4.0, 1));
    lab.handle(Event::NodeLeft { node: agent(1, 1), cause: String::new() });
    assert_eq!(lab.free_cpus(1), 8.0);
    assert_eq!(lab.state.nodes().len(), 1);
}

#[test]
fn a_node_that_is_back_keeps_what_it_reports_and_loses_what_it_does_not() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 2));
    let job = lab.start_job();
    let workers = lab.equip_and_start(job, 1);
    let spawned = [(); 4].map(|()| lab.spawn(job, cpus(1.0)));
    let lives = spawned.iter().find(|(_, worker)| *worker == workers[0]).unwrap().0;
    let began_unheard = lab.place(job, plain()).placed();
    assert_eq!(lab.state.worker_of_actor(began_unheard), Some(workers[0]));
    let stranger = report(WorkerId(99), job, &[]);
    let known = report(workers[0], job, &[lives, began_unheard, ActorKey(77)]);
    let actions = lab.rejoin(node_facts(1, 4.0, 2), vec![known, stranger]);
    for (actor, _) in spawned.into_iter().filter(|(actor, _)| *actor != lives) {
        lab.is_dead(actor, "it was gone when its node rejoined");
    }
    assert_eq!(lab.actor(lives).state, ActorState::Alive);
    assert_eq!(lab.actor(began_unheard).state, ActorState::Alive);
    assert_eq!(lab.free_cpus(1), 3.0);
    assert_eq!(stopped(&actions), [workers[1], WorkerId(99)]);
    assert_eq!(started(&actions).len(), 1);
    let at = place(workers[0], ActorKey(77));
    let unknown = Action::StopActor { node: NodeId(1), worker: workers[0], actor: ActorKey(77), at };
    assert!(actions.contains(&unknown));
}

#[test]
fn what_was_to_be_stopped_on_a_node_is_stopped_when_it_is_back() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, worker) = lab.spawn(job, plain());
    let submitted = lab.ask(|ticket| {
        let facts = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_facts(0) };
        Event::JobSubmitted { ticket, facts }
    });
    let Some(Ok(Answer::Job { job: other, .. })) = submitted.answer else { panic!("{submitted:?}") };
    let message = String::new();
    lab.handle(Event::JobEnded { job: other, state: JobState::Stopped, exit_code: None, message });
    lab.ask(|ticket| Event::Kill { ticket, actor });
    let facts = node_facts(1, 4.0, 1);
    let workers = vec![report(worker, job, &[actor])];
    let (jobs, drivers) = (vec![job, other], vec![other]);
    let actions = lab.handle(Event::NodeJoined(NodeReport { facts, workers, jobs, drivers }));
    let node = NodeId(1);
    let at = place(worker, actor);
    let stops = [
        Action::StopActor { node, worker, actor, at },
        Action::ReleaseJob { job: other, nodes: [node].into() },
        Action::StopDriver { node, job: other },
    ];
    assert_eq!(actions, stops);
}

#[test]
fn what_is_left_on_a_node_that_was_given_up_is_stopped_when_it_comes_back() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, worker) = lab.spawn(job, plain());
    lab.pass(lease(), &[], &[job]);
    lab.is_dead(actor, "node lost: no heartbeat for 13 s");
    let actions = lab.rejoin(node_facts(1, 4.0, 1), vec![report(worker, job, &[actor])]);
    assert_eq!(stopped(&actions), [worker]);
    assert_eq!(lab.state.nodes().len(), 1);
    assert!(lab.state.is_member(agent(1, 1)));
    assert_eq!(lab.state.node_facts(NodeId(1)), Some(&node_facts(1, 4.0, 1)));
}

#[test]
fn a_draining_node_gets_nothing_new_and_ends_when_its_jobs_have() {
    let (mut lab, job) = Lab::with_nodes(2);
    let (actor, worker) = lab.spawn(job, on(1, cpus(1.0)));
    let actions = lab.handle(Event::NodeDrain { node: NodeId(1) });
    assert!(!actions.contains(&Action::StopNode { node: NodeId(1) }));
    for _ in 0..3 {
        let (_, worker) = lab.spawn(job, plain());
        assert_eq!(lab.node_of(worker), 2);
    }
    let why = "node 0000000000000001 is draining and accepts no new work";
    lab.place(job, on(1, plain())).is_denied(ControlError::Infeasible, why);
    assert_eq!(started(&lab.ended(worker)), []);
    lab.is_dead(actor, "exit code 1");
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Draining));
    let other = lab.start_job();
    assert_eq!(lab.equip(other, 1), []);

    let (mut lab, job) = Lab::with_nodes(1);
    lab.handle(Event::NodeDrain { node: NodeId(1) });
    let actions = lab.end_job(job);
    assert_eq!(actions.last(), Some(&Action::StopNode { node: NodeId(1) }));
}

#[test]
fn what_was_about_to_be_on_a_node_that_goes_finds_another() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    lab.equip_and_start(job, 1);
    let own = lab.place(job, detached(cpus(4.0)));
    assert_eq!(started(&own.actions).len(), 1);
    lab.join(node_facts(2, 4.0, 1));
    let workers = lab.equip(job, 2);
    let parked = lab.place(job, on(2, cpus(1.0))).waits();
    let any = lab.place(job, cpus(1.0)).waits();
    lab.join(node_facts(3, 4.0, 1));
    lab.equip_and_start(job, 3);
    let mut actions = lab.handle(Event::NodeDrain { node: NodeId(2) });
    take_placed(&mut actions, any);
    assert!(matches!(take_answer(&mut actions, parked), Some(Err(ControlError::Infeasible(_)))));
    assert_eq!(lab.ready(workers[0]).len(), 1);
    let actions = lab.handle(Event::NodeLeft { node: agent(1, 1), cause: String::new() });
    // Node 3 holds one processor for the actor that was to be on node 2.
    assert_eq!(started(&actions), []);
    assert_eq!(lab.reasons(), ["it wants cpu 4, and the most that one node has free is cpu 3"]);
}

#[test]
fn a_silence_that_was_the_head_s_own_counts_against_nobody() {
    let (mut lab, job) = Lab::with_nodes(1);
    lab.now += 60_000;
    assert_eq!(lab.handle(Event::Tick), []);
    assert_eq!(lab.state.job_state(job), Some(JobState::Running));
    let actions = lab.pass(lease() - 1, &[], &[]);
    assert_eq!(actions, []);
    lab.handle(Event::NodeHeartbeat { node: agent(1, 1) });
    lab.pass(1, &[], &[]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Failed));
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Alive));
    lab.pass(lease(), &[], &[]);
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Dead));
    assert_eq!(lab.state.next_deadline(), None);
}

#[test]
fn only_so_many_of_what_has_ended_are_remembered() {
    let mut lab = Lab::new();
    lab.state = State::new(Settings { ended_kept_max: 3, ..Settings::default() });
    for round in 1..=5 {
        lab.join(node_facts(round, 4.0, 1));
        let job = lab.start_job();
        lab.equip_and_start(job, round);
        lab.spawn(job, cpus(1.0));
        let actions = lab.end_job(job);
        let forgotten = actions.iter().filter(|action| matches!(action, Action::Delete(RecordKey::Job(_))));
        assert_eq!(forgotten.count(), usize::from(round > 3));
        lab.handle(Event::NodeLeft { node: agent(round, 1), cause: String::new() });
    }
    let state = &lab.state;
    let lists = [state.nodes().len(), state.jobs().len(), state.workers().len(), state.actors().len()];
    assert_eq!(lists, [3; 4]);
    assert_eq!(state.schedule.shapes(), 1);
}

#[test]
fn a_life_of_an_agent_that_is_over_is_told_nothing_more() {
    let (mut lab, _) = Lab::with_nodes(2);
    let over = |node, life| Action::ForgetAgent { agent: agent(node, life) };
    let left = lab.handle(Event::NodeLeft { node: agent(1, 1), cause: "it left".to_owned() });
    assert!(left.contains(&over(1, 1)));
    let later = NodeDescriptor { agent: agent(2, 2), ..node_facts(2, 4.0, 1) };
    let actions = lab.join(later);
    assert!(actions.contains(&over(2, 1)) && !actions.contains(&over(2, 2)));
    assert!(lab.pass(lease() + 1, &[], &[]).contains(&over(2, 2)));
}

#[test]
fn a_worker_that_is_still_being_started_is_left_alone_when_its_node_comes_again() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 2));
    let job = lab.start_job();
    let [ready, starting] = lab.equip(job, 1)[..] else { panic!("there are not two") };
    lab.ready(ready);
    let booting = WorkerReport { member: None, pid: 0, ..report(starting, job, &[]) };
    let actions = lab.rejoin(node_facts(1, 4.0, 2), vec![report(ready, job, &[]), booting]);
    assert_eq!((stopped(&actions), started(&actions)), (Vec::new(), Vec::new()));
    assert_eq!(news(&lab.ready(starting)).len(), 1);
    // One that is in no report is gone.
    let actions = lab.rejoin(node_facts(1, 4.0, 2), vec![report(ready, job, &[])]);
    assert_eq!((stopped(&actions), started(&actions).len()), (vec![starting], 1));
}
