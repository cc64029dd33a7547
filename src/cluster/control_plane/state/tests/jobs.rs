//! Tests of jobs: start, end, and everything that ends with them.

use super::*;
use crate::config::JOB_TEXT_BYTES_MAX;

fn submit_job(harness: &mut Harness, node: u64) -> IssuedRequest {
    let descriptor = JobDescriptor { driver: None, pid: 0, runs_on: Some(NodeId(node)), ..job_descriptor(0) };
    harness.ask(|ticket| ControlEvent::JobSubmitted { ticket, descriptor })
}

fn job_of(request: &IssuedRequest) -> JobId {
    match &request.reply {
        Some(Ok(ControlReply::Job { job, .. })) => *job,
        other => panic!("{other:?}"),
    }
}

fn end(harness: &mut Harness, job: JobId, state: JobState, exit_code: Option<i32>) -> Vec<Action> {
    harness.handle(ControlEvent::JobEnded { job, state, exit_code, message: "it was asked to".to_owned() })
}

#[test]
fn end_of_a_job_ends_its_actors_and_workers_and_refuses_pending_requests() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) });
    let pending = harness.place(job, cpus(1.0)).expect_pending();
    let mut actions = harness.end_job(job);
    let expected = "its job has ended: done";
    assert_eq!(take_reply(&mut actions, pending), Some(Err(ControlError::JobEnded(expected.to_owned()))));
    harness.expect_dead(actor, expected);
    assert_eq!(stopped(&actions), [worker]);
    assert!(actions.contains(&Action::Delete(RecordKey::Actor(actor))));
    assert_eq!(driver_events(&actions), [] as [&JobEvent; 0]);
    assert_eq!(harness.free_cpus(1), 4.0);
    harness.place(job, plain()).expect_error(ControlError::JobEnded, "job 00000001 is over: done");
    let info = &harness.state.jobs()[0];
    assert_eq!((info.state, info.exit_code), (JobState::Succeeded, Some(0)));
    let other = harness.start_job();
    harness.provision_and_start(other, 1);
    harness.spawn(other, named("a"));
}

#[test]
fn job_fails_when_the_lease_of_its_driver_expires() {
    let (mut harness, job) = Harness::with_nodes(1);
    let heartbeats = [agent(1, 1)];
    harness.advance(3, &heartbeats, &[job]);
    harness.advance(lease() - 1, &heartbeats, &[]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Running));
    let actions = harness.advance(1, &heartbeats, &[]);
    let why = "the driver was lost: no heartbeat for 10 s".to_owned();
    assert_eq!(driver_events(&actions), [&JobEvent::Stopped { why: why.clone() }]);
    let info = &harness.state.jobs()[0];
    assert_eq!((info.state, info.message.as_ref()), (JobState::Failed, Some(&why)));
    let back = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(job),
        descriptor: job_descriptor(1),
    });
    back.expect_error(ControlError::JobEnded, &format!("job 00000001 is over: {why}"));
}

#[test]
fn submitted_job_needs_no_lease_while_its_driver_process_runs() {
    let (mut harness, _) = Harness::with_nodes(1);
    let request = submit_job(&mut harness, 1);
    let job = job_of(&request);
    assert!(request.actions.iter().any(|action| matches!(action, Action::Persist(Record::Job { .. }))));
    assert_eq!(harness.state.job_state(job), Some(JobState::Pending));
    harness.handle(ControlEvent::DriverStarted { job, node: NodeId(1) });
    // Far longer than the lease of a driver.
    harness.advance(60, &[agent(1, 1)], &[]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Running));
    assert_eq!(harness.state.driver(job), None);
    let connected = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(job),
        descriptor: job_descriptor(5),
    });
    assert_eq!(job_of(&connected), job);
    assert_eq!(harness.state.job_state(job), Some(JobState::Running));
    assert_eq!(harness.state.driver(job), job_descriptor(5).driver);
    assert_eq!(harness.state.job_descriptor(job).and_then(|descriptor| descriptor.runs_on), Some(NodeId(1)));
    let other = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(job),
        descriptor: job_descriptor(6),
    });
    other.expect_error(ControlError::Unknown, &format!("job {job} has another driver"));
}

/// Submitted job whose driver runs and has connected, with a worker on its node.
fn connected_submission(harness: &mut Harness) -> JobId {
    let job = job_of(&submit_job(harness, 1));
    harness.handle(ControlEvent::DriverStarted { job, node: NodeId(1) });
    harness.ask(|ticket| ControlEvent::JobStarted { ticket, job: Some(job), descriptor: job_descriptor(5) });
    harness.provision_and_start(job, 1);
    job
}

#[test]
fn submitted_job_whose_driver_left_holds_nothing_and_ends_with_the_process() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = connected_submission(&mut harness);
    let (actor, worker) = harness.spawn(job, cpus(4.0));
    let actions =
        harness.handle(ControlEvent::DriverLeft { job, why: "it shut its cluster down".to_owned() });
    assert_eq!((stopped(&actions), harness.free_cpus(1)), (vec![worker], 4.0));
    harness.expect_dead(actor, "its job has left the cluster: it shut its cluster down");
    harness.advance(60, &[agent(1, 1)], &[]);
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.message.as_deref()), (JobState::Running, Some("it shut its cluster down")));
    // The job has no driver any more.
    let expected = format!("job {job} has left the cluster");
    let back = |ticket| ControlEvent::JobStarted { ticket, job: Some(job), descriptor: job_descriptor(5) };
    harness.ask(back).expect_error(ControlError::JobEnded, &expected);
    harness.place(job, plain()).expect_error(ControlError::JobEnded, &expected);
    assert_eq!(harness.handle(ControlEvent::NodeProvisioned { job, node: NodeId(1) }), []);
    end(&mut harness, job, JobState::Succeeded, Some(0));
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code), (JobState::Succeeded, Some(0)));
}

#[test]
fn submitted_driver_with_an_expired_lease_loses_its_workers_but_is_not_killed() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = connected_submission(&mut harness);
    let (mut events, mut stopping) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let actions = harness.advance(1, &[agent(1, 1)], &[JobId(1)]);
        events.extend(driver_events(&actions).into_iter().cloned());
        stopping.extend(actions.into_iter().filter(|it| matches!(it, Action::StopDriver { .. })));
    }
    assert!(matches!(&events[..], [JobEvent::Stopped { why }] if why.contains("no heartbeat")), "{events:?}");
    assert_eq!((stopping, harness.state.job_state(job)), (Vec::new(), Some(JobState::Running)));
    end(&mut harness, job, JobState::Failed, Some(3));
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code), (JobState::Failed, Some(3)));
}

#[test]
fn displayed_texts_of_a_job_are_truncated() {
    let mut harness = Harness::new();
    let long = "\u{fc}".repeat(JOB_TEXT_BYTES_MAX);
    let descriptor = JobDescriptor { entrypoint: long.clone(), hostname: long.clone(), ..job_descriptor(1) };
    let job = job_of(&harness.ask(|ticket| ControlEvent::JobStarted { ticket, job: None, descriptor }));
    harness.handle(ControlEvent::JobEnded { job, state: JobState::Failed, exit_code: None, message: long });
    let info = harness.state.jobs().pop().unwrap();
    let lengths = [info.entrypoint.len(), info.hostname.len(), info.message.unwrap_or_default().len()];
    assert_eq!(lengths, [JOB_TEXT_BYTES_MAX; 3]);
}

#[test]
fn message_of_a_leaving_driver_is_truncated() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = connected_submission(&mut harness);
    harness.handle(ControlEvent::DriverLeft { job, why: "x".repeat(2 * JOB_TEXT_BYTES_MAX) });
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!(info.message.map(|message| message.len()), Some(JOB_TEXT_BYTES_MAX));
}

#[test]
fn node_cannot_report_the_driver_of_another_node() {
    let (mut harness, _) = Harness::with_nodes(2);
    let job = job_of(&submit_job(&mut harness, 1));
    let stop = Action::StopDriver { node: NodeId(2), job };
    assert_eq!(harness.handle(ControlEvent::DriverStarted { job, node: NodeId(2) }), [stop]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Pending));
    harness.advance(60, &[agent(1, 1), agent(2, 1)], &[]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Failed));
}

#[test]
fn submitted_job_fails_if_its_driver_is_not_started() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = job_of(&submit_job(&mut harness, 1));
    harness.advance(29, &[agent(1, 1)], &[]);
    assert_eq!(harness.state.job_state(job), Some(JobState::Pending));
    let actions = harness.advance(1, &[agent(1, 1)], &[]);
    let info = harness.state.jobs().pop().unwrap();
    let why = "its driver was not started within 30 s of its submission; submit the job again";
    assert_eq!((info.state, info.message.as_deref()), (JobState::Failed, Some(why)));
    // The driver must not be started later either.
    let stop = Action::StopDriver { node: NodeId(1), job };
    assert!(actions.contains(&stop));
    assert_eq!(harness.handle(ControlEvent::DriverStarted { job, node: NodeId(1) }), [stop]);
}

#[test]
fn nodes_with_the_executable_are_released_when_the_job_ends() {
    let (mut harness, job) = Harness::with_nodes(3);
    let [one, other] = [1, 2].map(NodeId);
    harness.handle(ControlEvent::ExecutablePinned { job, node: one });
    harness.handle(ControlEvent::ExecutablePinned { job, node: other });
    // The pinned executable is gone with the node.
    harness.handle(ControlEvent::NodeLeft { node: agent(2, 1), cause: "it left".to_owned() });
    let expected = Action::ReleaseJob { job, nodes: [one].into() };
    assert!(harness.end_job(job).contains(&expected));
    // The driver did not know yet, and provisioned another node.
    let late = Action::ReleaseJob { job, nodes: [NodeId(3)].into() };
    assert_eq!(harness.handle(ControlEvent::ExecutablePinned { job, node: NodeId(3) }), [late]);
    let never = JobId(77);
    let unknown = Action::ReleaseJob { job: never, nodes: [one].into() };
    assert_eq!(harness.handle(ControlEvent::ExecutablePinned { job: never, node: one }), [unknown]);
}

#[test]
fn submitted_job_ends_with_the_node_of_its_driver() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = job_of(&submit_job(&mut harness, 1));
    harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: "it was stopped".to_owned() });
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!((info.job_id, info.state), (job, JobState::Failed));
    assert_eq!(info.message.as_deref(), Some("node lost: it was stopped"));
    let why = "the node for the job's driver has left the cluster, is draining, or is unreachable";
    submit_job(&mut harness, 1).expect_error(ControlError::Unknown, why);
}

#[test]
fn stopped_job_notifies_its_driver_and_gets_the_exit_code_later() {
    let (mut harness, _) = Harness::with_nodes(1);
    let job = job_of(&submit_job(&mut harness, 1));
    let actions = end(&mut harness, job, JobState::Stopped, None);
    let why = "it was asked to".to_owned();
    assert_eq!(driver_events(&actions), [&JobEvent::Stopped { why: why.clone() }]);
    assert!(actions.contains(&Action::StopDriver { node: NodeId(1), job }));
    let actions = end(&mut harness, job, JobState::Failed, Some(143));
    assert!(matches!(actions[..], [Action::Persist(Record::Job { state: JobState::Stopped, .. })]));
    assert_eq!(end(&mut harness, job, JobState::Failed, Some(1)), []);
    let info = harness.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code, info.message), (JobState::Stopped, Some(143), Some(why)));
}

#[test]
fn jobs_do_not_share_workers() {
    let (mut harness, job) = Harness::with_nodes(1);
    let other = harness.start_job();
    let pending = harness.place(other, plain()).expect_pending();
    let worker = harness.provision(other, 1)[0];
    let mut actions = harness.ready(worker);
    let actor = take_placed(&mut actions, pending);
    assert_eq!(harness.state.worker_of_actor(actor), Some(worker));
    let (_, first) = harness.spawn(job, plain());
    assert_ne!(first, worker);
}

#[test]
fn requests_for_unknown_jobs_are_refused() {
    let mut harness = Harness::new();
    harness.place(JobId(7), plain()).expect_error(ControlError::Unknown, "there is no job 00000007");
    let request = harness.ask(|ticket| ControlEvent::JobStarted {
        ticket,
        job: Some(JobId(7)),
        descriptor: job_descriptor(1),
    });
    request.expect_error(ControlError::Unknown, "there is no job 00000007");
}
