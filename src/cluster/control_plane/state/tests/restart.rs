//! A later life of the head goes on where the earlier one was.

use super::*;
use crate::cluster::model::{AlertKind, NodeReport, WorkerReport};
use crate::config::ACTOR_ID_BLOCK;

/// What is kept of a lab, whose actions were all noted.
struct Noted {
    lab: Lab,
    actions: Vec<Action>,
}

impl Noted {
    fn note(&mut self, event: Event) -> Vec<Action> {
        let actions = self.lab.handle(event);
        self.actions.extend(actions.clone());
        actions
    }

    fn place(&mut self, job: JobId, spec: ActorSpec) -> (Ticket, Vec<Action>) {
        let ticket = self.lab.ticket();
        (ticket, self.note(Event::Place { ticket, job, spec }))
    }

    fn begin(&mut self, actor: ActorKey) -> WorkerId {
        let worker = self.lab.state.worker_of_actor(actor).unwrap();
        self.note(Event::ActorStarted { actor, worker, at: place(worker, actor) });
        worker
    }

    /// The head is away for a minute.
    fn restart(self) -> (Lab, Vec<Action>) {
        let mut lab = Lab { state: State::new(Settings::default()), now: self.lab.now + 60_000, ..self.lab };
        let actions = lab.handle(Event::Restored(kept(&self.actions)));
        lab.numbers_are_kept(&actions);
        (lab, actions)
    }
}

/// One node, one job with one worker, and actors: plain, named, and detached with a name.
struct Before {
    job: JobId,
    worker: WorkerId,
    own: WorkerId,
    plain: ActorKey,
    named: ActorKey,
    detached: ActorKey,
}

fn before() -> (Noted, Before) {
    let mut noted = Noted { lab: Lab::new(), actions: Vec::new() };
    noted.note(Event::NodeJoined(NodeReport::idle(node_facts(1, 4.0, 1))));
    let ticket = noted.lab.ticket();
    noted.note(Event::JobStarted { ticket, job: None, facts: job_facts(1) });
    let job = JobId(1);
    let worker = started(&noted.note(Event::NodeProvisioned { job, node: NodeId(1) }))[0];
    noted.note(Event::WorkerReady { worker, member: member(worker), pid: 7 });
    let mut spawn = |spec| {
        let (ticket, mut actions) = noted.place(job, spec);
        if let Some(own) = started(&actions).first().copied() {
            actions = noted.note(Event::WorkerReady { worker: own, member: member(own), pid: 7 });
        }
        let actor = take_placed(&mut actions, ticket);
        (actor, noted.begin(actor))
    };
    let (plain, _) = spawn(plain());
    let (named_one, _) = spawn(ActorSpec { name: Some("a".to_owned()), ..cpus(1.0) });
    let (detached, own) = spawn(detached(ActorSpec { name: Some("d".to_owned()), ..cpus(2.0) }));
    (noted, Before { job, worker, own, plain, named: named_one, detached })
}

fn report(before: &Before) -> Vec<WorkerReport> {
    let of = |worker, detached, actors: &[ActorKey]| WorkerReport {
        worker,
        job: before.job,
        detached,
        member: Some(member(worker)),
        pid: 7,
        suspended: false,
        actors: actors.iter().map(|actor| (*actor, "Plain".to_owned(), place(worker, *actor))).collect(),
        tasks: Vec::new(),
    };
    vec![
        of(before.worker, None, &[before.plain, before.named]),
        of(before.own, Some(before.detached), &[before.detached]),
    ]
}

fn find(lab: &mut Lab, name: &str) -> Asking {
    lab.ask(|ticket| Event::Find { ticket, namespace: "own".to_owned(), name: name.to_owned() })
}

#[test]
fn what_a_node_reports_goes_on_and_names_are_kept() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    assert_eq!(lab.state.job_state(before.job), Some(JobState::Running));
    assert!(!lab.state.is_member(agent(1, 1)));
    let looks = find(&mut lab, "a").waits();
    assert!(matches!(lab.place(before.job, named("a")).answer, Some(Err(ControlError::NameTaken(_)))));

    let mut actions = lab.rejoin(node_facts(1, 4.0, 1), report(&before));
    assert!(matches!(take_answer(&mut actions, looks), Some(Ok(Answer::Found { .. }))));
    assert_eq!((stopped(&actions), started(&actions)), (vec![], vec![]));
    for actor in [before.plain, before.named, before.detached] {
        assert_eq!(lab.actor(actor).state, ActorState::Alive);
    }
    assert_eq!(lab.free_cpus(1), 1.0);
    let asking = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(before.job), facts: job_facts(1) });
    let Some(Ok(Answer::Job { workers, .. })) = asking.answer else { panic!("{asking:?}") };
    assert_eq!(workers, [working(1, before.worker)]);
    assert_eq!(lab.equip(before.job, 1), []);
    let (new, worker) = lab.spawn(before.job, plain());
    assert_eq!(worker, before.worker);
    assert!(new > before.detached);
    lab.end_job(before.job);
    assert_eq!(lab.actor(before.detached).state, ActorState::Alive);
    assert_eq!(lab.free_cpus(1), 2.0);
}

#[test]
fn a_place_waits_until_a_node_that_could_take_it_is_back() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    let waits = lab.place(before.job, cpus(1.0)).waits();
    assert_eq!(lab.reasons(), ["no node has rejoined since the head restarted"]);
    let too_much = lab.place(before.job, cpus(5.0));
    assert!(matches!(too_much.answer, Some(Err(ControlError::Infeasible(_)))));
    let mut actions = lab.rejoin(node_facts(1, 4.0, 1), report(&before));
    take_placed(&mut actions, waits);
}

#[test]
fn what_nobody_reports_within_a_lease_is_lost() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    let looks = find(&mut lab, "d").waits();
    let mut reported = report(&before);
    reported.pop();
    lab.rejoin(node_facts(1, 4.0, 1), reported);
    lab.pass(lease() - 1, &[agent(1, 1)], &[before.job]);
    assert_eq!(lab.actor(before.detached).state, ActorState::PendingCreation);
    let mut actions = lab.pass(1, &[agent(1, 1)], &[before.job]);
    lab.is_dead(before.detached, "it was lost while the head was down");
    assert!(matches!(take_answer(&mut actions, looks), Some(Err(ControlError::Unknown(_)))));
    assert!(actions.contains(&Action::Delete(RecordKey::Actor(before.detached))));
    assert_eq!(lab.actor(before.named).state, ActorState::Alive);
    // It comes too late.
    let late = report(&before).pop().into_iter().collect();
    let actions = lab.rejoin(node_facts(1, 4.0, 1), late);
    assert!(stopped(&actions).contains(&before.own));
}

#[test]
fn a_worker_that_is_back_without_its_detached_actor_ends_with_that() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    let mut reported = report(&before);
    reported[1].actors.clear();
    let actions = lab.rejoin(node_facts(1, 4.0, 1), reported);
    assert_eq!(stopped(&actions), []);
    let actions = lab.pass(lease(), &[agent(1, 1)], &[before.job]);
    lab.is_dead(before.detached, "it was lost while the head was down");
    assert_eq!(stopped(&actions), [before.own]);
    assert!(lab.state.dedicated_workers.is_empty());
}

#[test]
fn nobody_is_given_up_for_one_lease_after_the_head_is_back_and_then_they_are() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    lab.pass(lease() - 1, &[], &[]);
    assert_eq!(lab.state.job_state(before.job), Some(JobState::Running));
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Alive));
    lab.pass(1, &[], &[]);
    assert_eq!(lab.state.job_state(before.job), Some(JobState::Failed));
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Dead));
    lab.is_dead(before.detached, "it was lost while the head was down");
}

#[test]
fn no_member_is_given_up_while_others_come_back_to_a_head_that_was_started_again() {
    let mut noted = Noted { lab: Lab::new(), actions: Vec::new() };
    let nodes = 10_000;
    for node in 1..=nodes {
        noted.note(Event::NodeJoined(NodeReport::idle(node_facts(node, 4.0, 1))));
    }
    let (mut lab, _) = noted.restart();
    // A head that takes 2 ms for each has the last back after 20 s.
    for node in 1..nodes {
        lab.now += 2;
        lab.handle(Event::NodeJoined(NodeReport::idle(node_facts(node, 4.0, 1))));
        lab.handle(Event::Tick);
        lab.handle(Event::NodeHeartbeat { node: agent(node, 1) });
    }
    let dead = |lab: &Lab| lab.state.nodes().iter().filter(|node| node.state == NodeState::Dead).count();
    assert_eq!(dead(&lab), 0);
    // The one that does not come is given up, soon after the others have.
    let back: Vec<_> = (1..nodes).map(|node| agent(node, 1)).collect();
    lab.pass(lease(), &back, &[]);
    assert_eq!((dead(&lab), lab.state.node_state(NodeId(nodes))), (1, Some(NodeState::Dead)));
}

#[test]
fn workers_of_jobs_that_ended_are_stopped_when_their_node_is_back() {
    let (mut noted, before) = before();
    let message = String::new();
    noted.note(Event::JobEnded { job: before.job, state: JobState::Failed, exit_code: None, message });
    let (mut lab, _) = noted.restart();
    let info = &lab.state.jobs()[0];
    assert_eq!((info.state, info.message.as_ref()), (JobState::Failed, None));
    let actions = lab.rejoin(node_facts(1, 4.0, 1), report(&before));
    assert_eq!(stopped(&actions), [before.worker]);
    assert_eq!(lab.actor(before.detached).state, ActorState::Alive);
}

#[test]
fn no_number_is_given_twice_even_if_what_was_kept_last_is_lost() {
    let (mut noted, before) = before();
    let given: Vec<_> = noted
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Persist(Record::IdWatermarks { .. })))
        .cloned()
        .collect();
    // A block is enough: nothing is kept for each actor.
    let (_, actions) = noted.place(before.job, plain());
    assert!(!actions.iter().any(|action| matches!(action, Action::Persist(_))));
    let mut lab = Lab { state: State::new(Settings::default()), ..noted.lab };
    let actions = lab.handle(Event::Restored(kept(&given)));
    // Not before its own numbers are on disk.
    let start = |ticket| Event::JobStarted { ticket, job: None, facts: job_facts(7) };
    lab.ask(start).is_denied(ControlError::NotPersisted, "its disk has accepted no writes for long");
    lab.numbers_are_kept(&actions);
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let worker = lab.equip_and_start(job, 1)[0];
    let (actor, _) = lab.spawn(job, plain());
    assert!(job > before.job && worker > before.own && actor.0 > before.detached.0 + 1);
}

#[test]
fn a_node_that_drained_goes_on_draining() {
    let (mut noted, before) = before();
    noted.note(Event::NodeDrain { node: NodeId(1) });
    let (mut lab, _) = noted.restart();
    assert_eq!(lab.state.node_state(NodeId(1)), Some(NodeState::Draining));
    let actions = lab.rejoin(node_facts(1, 4.0, 1), report(&before));
    assert!(!actions.contains(&Action::StopNode { node: NodeId(1) }));
    assert!(matches!(lab.place(before.job, plain()).answer, Some(Err(ControlError::Infeasible(_)))));
}

#[test]
fn a_job_that_was_submitted_waits_for_its_driver_as_long_as_its_node_says_that_it_runs() {
    for runs in [true, false] {
        let mut noted = Noted { lab: Lab::new(), actions: Vec::new() };
        noted.note(Event::NodeJoined(NodeReport::idle(node_facts(1, 4.0, 1))));
        let ticket = noted.lab.ticket();
        let facts = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_facts(0) };
        noted.note(Event::JobSubmitted { ticket, facts });
        let job = JobId(1);
        noted.note(Event::DriverStarted { job, node: NodeId(1) });
        let (mut lab, _) = noted.restart();
        let drivers = if runs { vec![job] } else { Vec::new() };
        let report = NodeReport { drivers, ..NodeReport::idle(node_facts(1, 4.0, 1)) };
        lab.handle(Event::NodeJoined(report));
        lab.pass(60, &[agent(1, 1)], &[]);
        let expected = if runs { JobState::Running } else { JobState::Failed };
        assert_eq!(lab.state.job_state(job), Some(expected));
    }
}

#[test]
fn a_host_of_which_a_later_life_knows_nothing_has_ended_once_all_nodes_are_back() {
    let (mut noted, before) = before();
    noted.note(Event::NodeJoined(NodeReport::idle(node_facts(2, 4.0, 1))));
    let (mut lab, _) = noted.restart();
    let (lives, gone) = (member(before.own).actors, member(before.worker).actors);
    assert_eq!([lab.state.host_exit_cause(lives), lab.state.host_exit_cause(gone)], [None, None]);
    let report = WorkerReport {
        worker: before.own,
        job: before.job,
        detached: Some(before.detached),
        member: Some(member(before.own)),
        pid: 7,
        suspended: false,
        actors: vec![(before.detached, "Plain".to_owned(), place(before.own, before.detached))],
        tasks: Vec::new(),
    };
    lab.rejoin(node_facts(1, 4.0, 1), vec![report]);
    // It may be on the node that is still away.
    assert_eq!(lab.state.host_exit_cause(gone), None);
    lab.rejoin(node_facts(2, 4.0, 1), Vec::new());
    assert_eq!(lab.state.host_exit_cause(lives), None);
    let end = lab.state.host_exit_cause(gone).unwrap();
    assert!(end.contains("while the head was down"), "{end}");
}

#[test]
fn nodes_are_awaited_until_they_are_back_and_a_job_that_comes_meanwhile_is_told_so() {
    let (noted, before) = before();
    let (mut lab, _) = noted.restart();
    let start = |ticket| Event::JobStarted { ticket, job: None, facts: job_facts(77) };
    let found = |asking: &Asking| match &asking.answer {
        Some(Ok(Answer::Job { nodes, rejoining: awaited, .. })) => (nodes.len(), *awaited),
        other => panic!("{other:?}"),
    };
    assert_eq!(lab.state.nodes()[0].state, NodeState::Rejoining);
    assert_eq!(found(&lab.ask(start)), (0, true));
    lab.rejoin(node_facts(1, 4.0, 1), report(&before));
    assert_eq!(lab.state.nodes()[0].state, NodeState::Alive);
    assert_eq!(found(&lab.ask(start)), (1, false));
}

#[test]
fn while_nothing_can_be_kept_nothing_new_is_taken_on_that_has_to_be() {
    let (mut lab, job) = Lab::with_nodes(1);
    let why = "the disk is full".to_owned();
    lab.handle(Event::PersistenceStatus { trouble: Some(why.clone()) });
    for spec in [named("a"), cpus(1.0), detached(plain())] {
        lab.place(job, spec).is_denied(ControlError::NotPersisted, &why);
    }
    let submitted = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_facts(9) };
    lab.ask(|ticket| Event::JobSubmitted { ticket, facts: submitted })
        .is_denied(ControlError::NotPersisted, &why);
    let start = |job| move |ticket| Event::JobStarted { ticket, job, facts: job_facts(1) };
    lab.ask(start(None)).is_denied(ControlError::NotPersisted, &why);
    assert_eq!(lab.state.jobs().len(), 1);
    assert_eq!(lab.free_cpus(1), 4.0);
    let troubles = lab.state.alerts();
    assert!(troubles[0].kind == AlertKind::HeadState && troubles[0].text.contains(&why), "{troubles:?}");
    // What there is goes on: the job's driver may be back, and spawn plain actors while there are numbers.
    assert!(matches!(lab.ask(start(Some(job))).answer, Some(Ok(Answer::Job { .. }))));
    lab.place(job, plain()).placed();
    lab.state.ids.start_at(1, 1, 1);
    lab.place(job, plain()).is_denied(ControlError::NotPersisted, &why);
    let (jobs, workers, actors) = (1, 1, 1 + ACTOR_ID_BLOCK);
    lab.handle(Event::NumbersKept { jobs, workers, actors });
    lab.place(job, plain()).placed();
    lab.handle(Event::PersistenceStatus { trouble: None });
    lab.place(job, named("a")).placed();
    assert_eq!(lab.state.alerts(), []);
}
