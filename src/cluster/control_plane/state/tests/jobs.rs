//! Jobs: how they begin and end, and what ends with them.

use super::*;
use crate::config::JOB_TEXT_BYTES_MAX;

fn submitted(lab: &mut Lab, node: u64) -> Asking {
    let facts = JobDescriptor { driver: None, pid: 0, runs_on: Some(NodeId(node)), ..job_facts(0) };
    lab.ask(|ticket| Event::JobSubmitted { ticket, facts })
}

fn job_of(asking: &Asking) -> JobId {
    match &asking.answer {
        Some(Ok(Answer::Job { job, .. })) => *job,
        other => panic!("{other:?}"),
    }
}

fn end(lab: &mut Lab, job: JobId, state: JobState, exit_code: Option<i32>) -> Vec<Action> {
    lab.handle(Event::JobEnded { job, state, exit_code, message: "it was asked to".to_owned() })
}

#[test]
fn a_job_s_end_ends_its_actors_and_workers_and_denies_what_waits() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, worker) = lab.spawn(job, ActorSpec { name: Some("a".to_owned()), ..cpus(4.0) });
    let waits = lab.place(job, cpus(1.0)).waits();
    let mut actions = lab.end_job(job);
    let over = "its job has ended: done";
    assert_eq!(take_answer(&mut actions, waits), Some(Err(ControlError::JobEnded(over.to_owned()))));
    lab.is_dead(actor, over);
    assert_eq!(stopped(&actions), [worker]);
    assert!(actions.contains(&Action::Delete(RecordKey::Actor(actor))));
    assert_eq!(news(&actions), [] as [&JobEvent; 0]);
    assert_eq!(lab.free_cpus(1), 4.0);
    lab.place(job, plain()).is_denied(ControlError::JobEnded, "job 00000001 is over: done");
    let info = &lab.state.jobs()[0];
    assert_eq!((info.state, info.exit_code), (JobState::Succeeded, Some(0)));
    let other = lab.start_job();
    lab.equip_and_start(other, 1);
    lab.spawn(other, named("a"));
}

#[test]
fn a_driver_that_is_not_heard_of_fails_its_job() {
    let (mut lab, job) = Lab::with_nodes(1);
    let beats = [agent(1, 1)];
    lab.pass(3, &beats, &[job]);
    lab.pass(lease() - 1, &beats, &[]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Running));
    let actions = lab.pass(1, &beats, &[]);
    let why = "the driver was lost: no heartbeat for 13 s".to_owned();
    assert_eq!(news(&actions), [&JobEvent::Stopped { why: why.clone() }]);
    let info = &lab.state.jobs()[0];
    assert_eq!((info.state, info.message.as_ref()), (JobState::Failed, Some(&why)));
    let back = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(1) });
    back.is_denied(ControlError::JobEnded, &format!("job 00000001 is over: {why}"));
}

#[test]
fn a_submitted_job_whose_driver_runs_waits_for_it_without_a_lease() {
    let (mut lab, _) = Lab::with_nodes(1);
    let asking = submitted(&mut lab, 1);
    let job = job_of(&asking);
    assert!(asking.actions.iter().any(|action| matches!(action, Action::Persist(Record::Job { .. }))));
    assert_eq!(lab.state.job_state(job), Some(JobState::Pending));
    lab.handle(Event::DriverStarted { job, node: NodeId(1) });
    lab.pass(60, &[agent(1, 1)], &[]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Running));
    assert_eq!(lab.state.driver(job), None);
    let came = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(5) });
    assert_eq!(job_of(&came), job);
    assert_eq!(lab.state.job_state(job), Some(JobState::Running));
    assert_eq!(lab.state.driver(job), job_facts(5).driver);
    assert_eq!(lab.state.job_facts(job).and_then(|facts| facts.runs_on), Some(NodeId(1)));
    let other = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(6) });
    other.is_denied(ControlError::Unknown, &format!("job {job} has another driver"));
}

/// A submitted job whose driver runs and has joined, with a worker on its node.
fn driven(lab: &mut Lab) -> JobId {
    let job = job_of(&submitted(lab, 1));
    lab.handle(Event::DriverStarted { job, node: NodeId(1) });
    lab.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(5) });
    lab.equip_and_start(job, 1);
    job
}

#[test]
fn a_submitted_job_whose_driver_has_left_holds_nothing_and_ends_with_its_process() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = driven(&mut lab);
    let (actor, worker) = lab.spawn(job, cpus(4.0));
    let actions = lab.handle(Event::DriverLeft { job, why: "it shut its cluster down".to_owned() });
    assert_eq!((stopped(&actions), lab.free_cpus(1)), (vec![worker], 4.0));
    lab.is_dead(actor, "its job has left the cluster: it shut its cluster down");
    lab.pass(60, &[agent(1, 1)], &[]);
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.message.as_deref()), (JobState::Running, Some("it shut its cluster down")));
    // It is the driver no more.
    let over = format!("job {job} has left the cluster");
    let back = |ticket| Event::JobStarted { ticket, job: Some(job), facts: job_facts(5) };
    lab.ask(back).is_denied(ControlError::JobEnded, &over);
    lab.place(job, plain()).is_denied(ControlError::JobEnded, &over);
    assert_eq!(lab.handle(Event::NodeProvisioned { job, node: NodeId(1) }), []);
    end(&mut lab, job, JobState::Succeeded, Some(0));
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code), (JobState::Succeeded, Some(0)));
}

#[test]
fn a_submitted_driver_that_is_not_heard_of_loses_its_workers_and_is_not_killed() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = driven(&mut lab);
    let (mut told, mut stopping) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let actions = lab.pass(1, &[agent(1, 1)], &[JobId(1)]);
        told.extend(news(&actions).into_iter().cloned());
        stopping.extend(actions.into_iter().filter(|it| matches!(it, Action::StopDriver { .. })));
    }
    assert!(matches!(&told[..], [JobEvent::Stopped { why }] if why.contains("no heartbeat")), "{told:?}");
    assert_eq!((stopping, lab.state.job_state(job)), (Vec::new(), Some(JobState::Running)));
    end(&mut lab, job, JobState::Failed, Some(3));
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code), (JobState::Failed, Some(3)));
}

#[test]
fn what_is_only_shown_of_a_job_is_bounded() {
    let mut lab = Lab::new();
    let long = "\u{fc}".repeat(JOB_TEXT_BYTES_MAX);
    let facts = JobDescriptor { entrypoint: long.clone(), hostname: long.clone(), ..job_facts(1) };
    let job = job_of(&lab.ask(|ticket| Event::JobStarted { ticket, job: None, facts }));
    lab.handle(Event::JobEnded { job, state: JobState::Failed, exit_code: None, message: long });
    let info = lab.state.jobs().pop().unwrap();
    let lengths = [info.entrypoint.len(), info.hostname.len(), info.message.unwrap_or_default().len()];
    assert_eq!(lengths, [JOB_TEXT_BYTES_MAX; 3]);
}

#[test]
fn the_message_of_a_driver_that_leaves_is_bounded() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = driven(&mut lab);
    lab.handle(Event::DriverLeft { job, why: "x".repeat(2 * JOB_TEXT_BYTES_MAX) });
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!(info.message.map(|message| message.len()), Some(JOB_TEXT_BYTES_MAX));
}

#[test]
fn a_node_that_is_not_to_run_a_driver_does_not_speak_for_it() {
    let (mut lab, _) = Lab::with_nodes(2);
    let job = job_of(&submitted(&mut lab, 1));
    let stop = Action::StopDriver { node: NodeId(2), job };
    assert_eq!(lab.handle(Event::DriverStarted { job, node: NodeId(2) }), [stop]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Pending));
    lab.pass(60, &[agent(1, 1), agent(2, 1)], &[]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Failed));
}

#[test]
fn a_submitted_job_whose_driver_nobody_starts_fails() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = job_of(&submitted(&mut lab, 1));
    lab.pass(29, &[agent(1, 1)], &[]);
    assert_eq!(lab.state.job_state(job), Some(JobState::Pending));
    let actions = lab.pass(1, &[agent(1, 1)], &[]);
    let info = lab.state.jobs().pop().unwrap();
    let why = "its driver was not started within 30 s of its submission; submit the job again";
    assert_eq!((info.state, info.message.as_deref()), (JobState::Failed, Some(why)));
    // Nor is it to be started any more.
    let stop = Action::StopDriver { node: NodeId(1), job };
    assert!(actions.contains(&stop));
    assert_eq!(lab.handle(Event::DriverStarted { job, node: NodeId(1) }), [stop]);
}

#[test]
fn whoever_keeps_a_job_s_executable_is_told_that_the_job_is_over() {
    let (mut lab, job) = Lab::with_nodes(3);
    let [one, other] = [1, 2].map(NodeId);
    lab.handle(Event::ExecutablePinned { job, node: one });
    lab.handle(Event::ExecutablePinned { job, node: other });
    // With it goes what the node has kept.
    lab.handle(Event::NodeLeft { node: agent(2, 1), cause: "it left".to_owned() });
    let over = Action::ReleaseJob { job, nodes: [one].into() };
    assert!(lab.end_job(job).contains(&over));
    // Its driver had not heard of it, and has equipped another node meanwhile.
    let late = Action::ReleaseJob { job, nodes: [NodeId(3)].into() };
    assert_eq!(lab.handle(Event::ExecutablePinned { job, node: NodeId(3) }), [late]);
    let never = JobId(77);
    let unknown = Action::ReleaseJob { job: never, nodes: [one].into() };
    assert_eq!(lab.handle(Event::ExecutablePinned { job: never, node: one }), [unknown]);
}

#[test]
fn a_submitted_job_ends_with_the_node_that_runs_its_driver() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = job_of(&submitted(&mut lab, 1));
    lab.handle(Event::NodeLeft { node: agent(1, 1), cause: "it was stopped".to_owned() });
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!((info.job_id, info.state), (job, JobState::Failed));
    assert_eq!(info.message.as_deref(), Some("node lost: it was stopped"));
    let why = "the node for the job's driver has left the cluster or is draining";
    submitted(&mut lab, 1).is_denied(ControlError::Unknown, why);
}

#[test]
fn a_job_that_is_stopped_has_its_driver_told_and_gets_its_exit_code_later() {
    let (mut lab, _) = Lab::with_nodes(1);
    let job = job_of(&submitted(&mut lab, 1));
    let actions = end(&mut lab, job, JobState::Stopped, None);
    let why = "it was asked to".to_owned();
    assert_eq!(news(&actions), [&JobEvent::Stopped { why: why.clone() }]);
    assert!(actions.contains(&Action::StopDriver { node: NodeId(1), job }));
    let actions = end(&mut lab, job, JobState::Failed, Some(143));
    assert!(matches!(actions[..], [Action::Persist(Record::Job { state: JobState::Stopped, .. })]));
    assert_eq!(end(&mut lab, job, JobState::Failed, Some(1)), []);
    let info = lab.state.jobs().pop().unwrap();
    assert_eq!((info.state, info.exit_code, info.message), (JobState::Stopped, Some(143), Some(why)));
}

#[test]
fn jobs_do_not_share_workers() {
    let (mut lab, job) = Lab::with_nodes(1);
    let other = lab.start_job();
    let waits = lab.place(other, plain()).waits();
    let worker = lab.equip(other, 1)[0];
    let mut actions = lab.ready(worker);
    let actor = take_placed(&mut actions, waits);
    assert_eq!(lab.state.worker_of_actor(actor), Some(worker));
    let (_, first) = lab.spawn(job, plain());
    assert_ne!(first, worker);
}

#[test]
fn unknown_jobs_are_denied() {
    let mut lab = Lab::new();
    lab.place(JobId(7), plain()).is_denied(ControlError::Unknown, "there is no job 00000007");
    let asking = lab.ask(|ticket| Event::JobStarted { ticket, job: Some(JobId(7)), facts: job_facts(1) });
    asking.is_denied(ControlError::Unknown, "there is no job 00000007");
}
