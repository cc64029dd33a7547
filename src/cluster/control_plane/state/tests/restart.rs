//! Tests of a restart of the head from its durable records.

use super::*;
use crate::cluster::model::{AlertKind, NodeReport, WorkerReport};
use crate::config::ACTOR_ID_BLOCK;

/// Harness that collects all actions, for a restart from their records.
pub(super) struct Recorder {
    pub(super) harness: Harness,
    pub(super) actions: Vec<Action>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { harness: Harness::new(), actions: Vec::new() }
    }

    pub(super) fn record_event(&mut self, event: ControlEvent) -> Vec<Action> {
        let actions = self.harness.handle(event);
        self.actions.extend(actions.clone());
        actions
    }

    fn place(&mut self, job: JobId, spec: ActorSpec) -> (Ticket, Vec<Action>) {
        let ticket = self.harness.ticket();
        (ticket, self.record_event(ControlEvent::Place { ticket, job, spec, recipe: None, id: None }))
    }

    fn create(&mut self, actor: ActorKey) -> WorkerId {
        let worker = self.harness.state.worker_of_actor(actor).unwrap();
        self.record_event(ControlEvent::ActorStarted { actor, worker, at: location(worker, actor) });
        worker
    }

    /// Restarts the head after one minute.
    pub(super) fn restart(self) -> (Harness, Vec<Action>) {
        let mut harness = Harness {
            state: ClusterState::new(Settings::default()),
            now: self.harness.now + 60_000,
            ..self.harness
        };
        let actions = harness.handle(ControlEvent::Restored(durable_records(&self.actions)));
        // Without durable watermarks the new incarnation would allocate no ids.
        harness.persist_watermarks(&actions);
        (harness, actions)
    }
}

/// A node, a job with one worker, and three actors: plain, named, and detached with a name.
struct Setup {
    job: JobId,
    worker: WorkerId,
    dedicated: WorkerId,
    plain: ActorKey,
    named: ActorKey,
    detached: ActorKey,
}

fn setup() -> (Recorder, Setup) {
    let mut recorder = Recorder::new();
    recorder.record_event(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(1, 4.0, 1))));
    let ticket = recorder.harness.ticket();
    recorder.record_event(ControlEvent::JobStarted { ticket, job: None, descriptor: job_descriptor(1) });
    let job = JobId(1);
    let worker = started(&recorder.record_event(ControlEvent::NodeProvisioned { job, node: NodeId(1) }))[0];
    recorder.record_event(ControlEvent::WorkerReady { worker, member: member(worker), pid: 7 });
    let mut spawn = |spec| {
        let (ticket, mut actions) = recorder.place(job, spec);
        if let Some(dedicated) = started(&actions).first().copied() {
            actions = recorder.record_event(ControlEvent::WorkerReady {
                worker: dedicated,
                member: member(dedicated),
                pid: 7,
            });
        }
        let actor = take_placed(&mut actions, ticket);
        (actor, recorder.create(actor))
    };
    let (plain, _) = spawn(plain());
    let (named_actor, _) = spawn(ActorSpec { name: Some("a".to_owned()), ..cpus(1.0) });
    let (detached, dedicated) = spawn(detached(ActorSpec { name: Some("d".to_owned()), ..cpus(2.0) }));
    (recorder, Setup { job, worker, dedicated, plain, named: named_actor, detached })
}

fn report(setup: &Setup) -> Vec<WorkerReport> {
    let of = |worker, detached, actors: &[ActorKey]| WorkerReport {
        worker,
        job: setup.job,
        detached,
        member: Some(member(worker)),
        pid: 7,
        suspended: false,
        actors: actors.iter().map(|actor| (*actor, "Plain".to_owned(), location(worker, *actor))).collect(),
        tasks: Vec::new(),
    };
    vec![
        of(setup.worker, None, &[setup.plain, setup.named]),
        of(setup.dedicated, Some(setup.detached), &[setup.detached]),
    ]
}

fn find(harness: &mut Harness, name: &str) -> IssuedRequest {
    harness.ask(|ticket| ControlEvent::Find { ticket, namespace: "own".to_owned(), name: name.to_owned() })
}

#[test]
fn reported_actors_and_names_survive_a_restart() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    assert_eq!(harness.state.job_state(setup.job), Some(JobState::Running));
    assert!(!harness.state.is_member(agent(1, 1)));
    let lookup = find(&mut harness, "a").expect_pending();
    assert!(matches!(harness.place(setup.job, named("a")).reply, Some(Err(ControlError::NameTaken(_)))));

    let mut actions = harness.rejoin(node_descriptor(1, 4.0, 1), report(&setup));
    assert!(matches!(take_reply(&mut actions, lookup), Some(Ok(ControlReply::Found { .. }))));
    assert_eq!((stopped(&actions), started(&actions)), (vec![], vec![]));
    for actor in [setup.plain, setup.named, setup.detached] {
        assert_eq!(harness.actor(actor).state, ActorState::Alive);
    }
    assert_eq!(harness.free_cpus(1), 1.0);
    let request = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(setup.job),
        descriptor: job_descriptor(1),
    });
    let Some(Ok(ControlReply::Job { workers, .. })) = request.reply else { panic!("{request:?}") };
    assert_eq!(workers, [worker_entry(1, setup.worker)]);
    assert_eq!(harness.provision(setup.job, 1), []);
    let (new, worker) = harness.spawn(setup.job, plain());
    assert_eq!(worker, setup.worker);
    assert!(new > setup.detached);
    harness.end_job(setup.job);
    assert_eq!(harness.actor(setup.detached).state, ActorState::Alive);
    assert_eq!(harness.free_cpus(1), 2.0);
}

#[test]
fn request_waits_until_a_feasible_node_rejoins() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    let pending = harness.place(setup.job, cpus(1.0)).expect_pending();
    assert_eq!(harness.reasons(), ["no node has rejoined since the head restarted"]);
    let too_much = harness.place(setup.job, cpus(5.0));
    assert!(matches!(too_much.reply, Some(Err(ControlError::Infeasible(_)))));
    let mut actions = harness.rejoin(node_descriptor(1, 4.0, 1), report(&setup));
    take_placed(&mut actions, pending);
}

#[test]
fn unreported_actors_are_lost_after_one_lease() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    let lookup = find(&mut harness, "d").expect_pending();
    let mut reported = report(&setup);
    reported.pop();
    harness.rejoin(node_descriptor(1, 4.0, 1), reported);
    harness.advance(lease() - 1, &[agent(1, 1)], &[setup.job]);
    assert_eq!(harness.actor(setup.detached).state, ActorState::PendingCreation);
    let mut actions = harness.advance(1, &[agent(1, 1)], &[setup.job]);
    harness.expect_dead(setup.detached, "it was lost while the head was down");
    assert!(matches!(take_reply(&mut actions, lookup), Some(Err(ControlError::Unknown(_)))));
    assert!(actions.contains(&Action::Delete(RecordKey::Actor(setup.detached))));
    assert_eq!(harness.actor(setup.named).state, ActorState::Alive);
    // The report arrives after the deadline.
    let late = report(&setup).pop().into_iter().collect();
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), late);
    assert!(stopped(&actions).contains(&setup.dedicated));
}

#[test]
fn repeated_start_of_a_job_does_not_prolong_the_lease_of_a_missing_node() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    let start =
        |ticket| ControlEvent::JobStarted { ticket, job: Some(setup.job), descriptor: job_descriptor(1) };
    for _ in 0..=lease() / 2 {
        assert!(harness.ask(start).reply.is_some());
        harness.advance(2, &[], &[setup.job]);
    }
    assert_eq!(harness.state.nodes()[0].state, NodeState::Dead);
}

#[test]
fn dedicated_worker_that_rejoins_without_its_actor_is_stopped() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    let mut reported = report(&setup);
    reported[1].actors.clear();
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), reported);
    assert_eq!(stopped(&actions), []);
    let actions = harness.advance(lease(), &[agent(1, 1)], &[setup.job]);
    harness.expect_dead(setup.detached, "it was lost while the head was down");
    assert_eq!(stopped(&actions), [setup.dedicated]);
    assert!(harness.state.dedicated_workers.is_empty());
}

#[test]
fn members_have_one_lease_to_rejoin_after_a_restart() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    harness.advance(lease() - 1, &[], &[]);
    assert_eq!(harness.state.job_state(setup.job), Some(JobState::Running));
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Alive));
    harness.advance(1, &[], &[]);
    assert_eq!(harness.state.job_state(setup.job), Some(JobState::Failed));
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Dead));
    harness.expect_dead(setup.detached, "it was lost while the head was down");
}

#[test]
fn driver_that_joins_again_and_again_does_not_keep_a_missing_node() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    for _ in 0..lease() {
        let (job, descriptor) = (Some(setup.job), job_descriptor(1));
        harness.ask(|ticket| ControlEvent::JobStarted { ticket, job, descriptor });
        harness.advance(1, &[], &[setup.job]);
    }
    assert_eq!(harness.state.job_state(setup.job), Some(JobState::Running));
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Dead));
}

#[test]
fn no_member_expires_while_others_still_rejoin() {
    let mut recorder = Recorder::new();
    let nodes = 10_000;
    for node in 1..=nodes {
        recorder.record_event(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(node, 4.0, 1))));
    }
    let (mut harness, _) = recorder.restart();
    // At 2 ms for each node, the last one rejoins after 20 s.
    for node in 1..nodes {
        harness.now += 2;
        harness.handle(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(node, 4.0, 1))));
        harness.handle(ControlEvent::Tick);
        harness.handle(ControlEvent::NodeHeartbeat { node: agent(node, 1) });
    }
    let dead =
        |harness: &Harness| harness.state.nodes().iter().filter(|node| node.state == NodeState::Dead).count();
    assert_eq!(dead(&harness), 0);
    // The missing node is declared dead soon after the others have rejoined.
    let back: Vec<_> = (1..nodes).map(|node| agent(node, 1)).collect();
    harness.advance(lease(), &back, &[]);
    assert_eq!((dead(&harness), harness.state.node_state(NodeId(nodes))), (1, Some(NodeState::Dead)));
}

#[test]
fn workers_of_ended_jobs_are_stopped_when_their_node_rejoins() {
    let (mut recorder, setup) = setup();
    let message = String::new();
    recorder.record_event(ControlEvent::JobEnded {
        job: setup.job,
        state: JobState::Failed,
        exit_code: None,
        message,
    });
    let (mut harness, _) = recorder.restart();
    let info = &harness.state.jobs()[0];
    assert_eq!((info.state, info.message.as_ref()), (JobState::Failed, None));
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), report(&setup));
    assert_eq!(stopped(&actions), [setup.worker]);
    assert_eq!(harness.actor(setup.detached).state, ActorState::Alive);
}

#[test]
fn no_id_is_allocated_twice_even_if_the_last_writes_are_lost() {
    let (mut recorder, setup) = setup();
    let given: Vec<_> = recorder
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Persist(Record::IdWatermarks { .. })))
        .cloned()
        .collect();
    // A block of ids needs one write, so an actor without a record needs none.
    let (_, actions) = recorder.place(setup.job, plain());
    assert!(!actions.iter().any(|action| matches!(action, Action::Persist(_))));
    // Everything but the watermarks is lost, as if the disk had failed after their last write.
    let mut harness = Harness { state: ClusterState::new(Settings::default()), ..recorder.harness };
    let actions = harness.handle(ControlEvent::Restored(durable_records(&given)));
    // Ids are allocated only once their watermark is durable.
    let start = |ticket| ControlEvent::JobStarted { ticket, job: None, descriptor: job_descriptor(7) };
    harness.ask(start).expect_error(ControlError::NotPersisted, "its disk has accepted no writes for long");
    harness.persist_watermarks(&actions);
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let worker = harness.provision_and_start(job, 1)[0];
    let (actor, _) = harness.spawn(job, plain());
    assert!(job > setup.job && worker > setup.dedicated && actor.0 > setup.detached.0 + 1);
}

#[test]
fn draining_survives_a_restart() {
    let (mut recorder, setup) = setup();
    recorder.record_event(ControlEvent::NodeDrain { node: NodeId(1) });
    let (mut harness, _) = recorder.restart();
    assert_eq!(harness.state.node_state(NodeId(1)), Some(NodeState::Draining));
    let actions = harness.rejoin(node_descriptor(1, 4.0, 1), report(&setup));
    assert!(!actions.contains(&Action::StopNode { node: NodeId(1) }));
    assert!(matches!(harness.place(setup.job, plain()).reply, Some(Err(ControlError::Infeasible(_)))));
}

#[test]
fn submitted_job_waits_for_its_driver_while_the_node_reports_it() {
    for runs in [true, false] {
        let mut recorder = Recorder::new();
        recorder.record_event(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(1, 4.0, 1))));
        let ticket = recorder.harness.ticket();
        let descriptor = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_descriptor(0) };
        recorder.record_event(ControlEvent::JobSubmitted { ticket, descriptor });
        let job = JobId(1);
        recorder.record_event(ControlEvent::DriverStarted { job, node: NodeId(1) });
        let (mut harness, _) = recorder.restart();
        let drivers = if runs { vec![job] } else { Vec::new() };
        let report = NodeReport { drivers, ..NodeReport::idle(node_descriptor(1, 4.0, 1)) };
        harness.handle(ControlEvent::NodeJoined(report));
        harness.advance(60, &[agent(1, 1)], &[]);
        let expected = if runs { JobState::Running } else { JobState::Failed };
        assert_eq!(harness.state.job_state(job), Some(expected));
    }
}

#[test]
fn unknown_host_has_ended_once_all_nodes_have_rejoined() {
    let (mut recorder, setup) = setup();
    recorder.record_event(ControlEvent::NodeJoined(NodeReport::idle(node_descriptor(2, 4.0, 1))));
    let (mut harness, _) = recorder.restart();
    let (alive_host, gone_host) = (member(setup.dedicated).actors, member(setup.worker).actors);
    assert_eq!([harness.state.host_end(alive_host), harness.state.host_end(gone_host)], [None, None]);
    let report = WorkerReport {
        worker: setup.dedicated,
        job: setup.job,
        detached: Some(setup.detached),
        member: Some(member(setup.dedicated)),
        pid: 7,
        suspended: false,
        actors: vec![(setup.detached, "Plain".to_owned(), location(setup.dedicated, setup.detached))],
        tasks: Vec::new(),
    };
    harness.rejoin(node_descriptor(1, 4.0, 1), vec![report]);
    // The worker may be on the node that has not rejoined.
    assert_eq!(harness.state.host_end(gone_host), None);
    harness.rejoin(node_descriptor(2, 4.0, 1), Vec::new());
    assert_eq!(harness.state.host_end(alive_host), None);
    let end = harness.state.host_end(gone_host).unwrap();
    assert!(end.text.contains("while the head was down"), "{end}");
}

#[test]
fn new_job_learns_that_nodes_are_still_rejoining() {
    let (recorder, setup) = setup();
    let (mut harness, _) = recorder.restart();
    let start = |ticket| ControlEvent::JobStarted { ticket, job: None, descriptor: job_descriptor(77) };
    let found = |request: &IssuedRequest| match &request.reply {
        Some(Ok(ControlReply::Job { nodes, rejoining, .. })) => (nodes.len(), *rejoining),
        other => panic!("{other:?}"),
    };
    assert_eq!(harness.state.nodes()[0].state, NodeState::Rejoining);
    assert_eq!(found(&harness.ask(start)), (0, true));
    harness.rejoin(node_descriptor(1, 4.0, 1), report(&setup));
    assert_eq!(harness.state.nodes()[0].state, NodeState::Alive);
    assert_eq!(found(&harness.ask(start)), (1, false));
}

#[test]
fn durable_work_is_refused_while_writes_fail() {
    let (mut harness, job) = Harness::with_nodes(1);
    let why = "the disk is full".to_owned();
    harness.handle(ControlEvent::PersistenceStatus { trouble: Some(why.clone()) });
    for spec in [named("a"), cpus(1.0), detached(plain())] {
        harness.place(job, spec).expect_error(ControlError::NotPersisted, &why);
    }
    let submitted = JobDescriptor { driver: None, runs_on: Some(NodeId(1)), ..job_descriptor(9) };
    harness
        .ask(|ticket| ControlEvent::JobSubmitted { ticket, descriptor: submitted })
        .expect_error(ControlError::NotPersisted, &why);
    let start = |job| move |ticket| ControlEvent::JobStarted { ticket, job, descriptor: job_descriptor(1) };
    harness.ask(start(None)).expect_error(ControlError::NotPersisted, &why);
    assert_eq!(harness.state.jobs().len(), 1);
    assert_eq!(harness.free_cpus(1), 4.0);
    let alerts = harness.state.alerts();
    assert!(alerts[0].kind == AlertKind::HeadState && alerts[0].text.contains(&why), "{alerts:?}");
    // Existing work continues: the driver may reconnect, and plain actors are placed while ids last.
    assert!(matches!(harness.ask(start(Some(job))).reply, Some(Ok(ControlReply::Job { .. }))));
    harness.place(job, plain()).expect_placed();
    harness.state.ids.start_at(1, 1, 1);
    harness.place(job, plain()).expect_error(ControlError::NotPersisted, &why);
    let (jobs, workers, actors) = (1, 1, 1 + ACTOR_ID_BLOCK);
    harness.handle(ControlEvent::WatermarksDurable { jobs, workers, actors });
    harness.place(job, plain()).expect_placed();
    harness.handle(ControlEvent::PersistenceStatus { trouble: None });
    harness.place(job, named("a")).expect_placed();
    assert_eq!(harness.state.alerts(), []);
}
