//! Workers: started, ready, ended.

use super::*;
use crate::config::TASK_NAMES_MAX;

#[test]
fn the_tasks_that_are_counted_for_a_worker_are_bounded() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (_, worker) = lab.spawn(job, plain());
    let count = |n, finished| TaskCount { name: format!("task {n:06}"), finished, ..TaskCount::default() };
    let counts = (0..2 * TASK_NAMES_MAX).map(|n| count(n, 1)).collect();
    lab.handle(Event::TaskCounts { worker, counts });
    // Those that are known go on being counted.
    lab.handle(Event::TaskCounts { worker, counts: vec![count(0, 7)] });
    let known = &lab.state.workers[&worker].tasks;
    assert_eq!((known.len(), known[0].finished), (TASK_NAMES_MAX, 7));
}
use crate::cluster::model::{TaskCount, WorkerState};

#[test]
fn a_node_that_has_the_executable_starts_its_workers_once() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 3));
    let job = lab.start_job();
    assert_eq!(lab.equip(job, 1), [1, 2, 3].map(WorkerId));
    assert_eq!(lab.equip(job, 1), []);
    let actions = lab.ready(WorkerId(2));
    let up = JobEvent::WorkerUp { node: NodeId(1), worker: WorkerId(2), member: member(WorkerId(2)), pid: 7 };
    assert_eq!(actions, [Action::NotifyDriver { job, news: up }]);
    assert_eq!(lab.state.worker_of(member(WorkerId(2)).tasks), Some(WorkerId(2)));
}

#[test]
fn a_worker_that_ends_takes_its_actors_along_and_is_started_anew() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (actor, worker) = lab.spawn(job, cpus(1.0));
    let counts = vec![TaskCount { name: "f".to_owned(), finished: 3, ..TaskCount::default() }];
    lab.handle(Event::TaskCounts { worker, counts });
    let actions = lab.ended(worker);
    lab.is_dead(actor, "exit code 1");
    let cause = "exit code 1".to_owned();
    let gone = JobEvent::WorkerDown { node: NodeId(1), worker, member: Some(member(worker)), cause };
    assert_eq!(news(&actions), [&gone]);
    assert_eq!(started(&actions).len(), 1);
    assert_eq!(lab.free_cpus(1), 4.0);
    let workers = lab.state.workers();
    let states: Vec<_> = workers.iter().map(|worker| worker.state).collect();
    assert_eq!(states, [WorkerState::Starting, WorkerState::Dead]);
    assert_eq!(lab.state.tasks()[0].count.finished, 3);
}

#[test]
fn tasks_are_counted_by_function_and_none_goes_on_in_a_worker_that_has_ended() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (_, worker) = lab.spawn(job, cpus(1.0));
    let count = |name: &str, [queued, running, finished, failed]: [u64; 4]| {
        let name = name.to_owned();
        TaskCount { name, queued, running, finished, failed }
    };
    let counted = |lab: &mut Lab, counts| lab.handle(Event::TaskCounts { worker, counts });
    let shown = |lab: &Lab| lab.state.tasks().into_iter().map(|task| task.count).collect::<Vec<_>>();
    counted(&mut lab, vec![count("g", [0, 1, 0, 0])]);
    counted(&mut lab, vec![count("f", [2, 1, 7, 1])]);
    assert_eq!(shown(&lab), [count("f", [2, 1, 7, 1]), count("g", [0, 1, 0, 0])]);
    lab.ended(worker);
    assert_eq!(shown(&lab), [count("f", [0, 0, 7, 4]), count("g", [0, 0, 0, 1])]);
    // Its last word was on the way.
    counted(&mut lab, vec![count("g", [0, 0, 1, 0])]);
    assert_eq!(shown(&lab), [count("f", [0, 0, 7, 4]), count("g", [0, 0, 1, 0])]);
}

#[test]
fn a_worker_that_a_signal_has_stopped_is_told_of_until_it_goes_on() {
    let (mut lab, job) = Lab::with_nodes(1);
    let (_, worker) = lab.spawn(job, cpus(1.0));
    let state = |lab: &Lab| {
        let all = lab.state.workers();
        all.iter().find(|summary| summary.worker_id == worker).unwrap().state
    };
    lab.handle(Event::WorkerSuspended { worker, suspended: true });
    assert_eq!(state(&lab), WorkerState::Suspended);
    let troubles = lab.state.alerts();
    assert!(troubles.len() == 1 && troubles[0].text.contains("`kill -CONT 7`"), "{troubles:?}");
    lab.handle(Event::WorkerSuspended { worker, suspended: false });
    let booting = started(&lab.ended(worker))[0];
    lab.handle(Event::WorkerSuspended { worker: booting, suspended: true });
    let troubles = lab.state.alerts();
    assert!(troubles[0].text.ends_with("stopped by a signal"), "{troubles:?}");
    lab.handle(Event::WorkerSuspended { worker: booting, suspended: false });
    lab.ready(booting);
    let worker = booting;
    let state = |lab: &Lab| {
        let all = lab.state.workers();
        all.iter().find(|summary| summary.worker_id == worker).unwrap().state
    };
    assert_eq!((state(&lab), lab.state.alerts()), (WorkerState::Alive, Vec::new()));
}

#[test]
fn workers_that_never_get_ready_are_given_up_and_the_reason_is_told() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let waits = lab.place(job, cpus(1.0)).waits();
    let mut worker = lab.equip(job, 1)[0];
    for _ in 0..2 {
        worker = started(&lab.ended(worker))[0];
    }
    assert_eq!(started(&lab.ended(worker)), []);
    let trouble = "its workers could not be started on node 0000000000000001: exit code 1";
    assert_eq!(lab.reasons(), [format!("no node runs workers of the job yet; {trouble}")]);
    assert_eq!(lab.free_cpus(1), 4.0);
    // Another node, or another try, helps.
    lab.join(node_facts(2, 4.0, 1));
    let worker = lab.equip(job, 2)[0];
    let mut actions = lab.ready(worker);
    take_placed(&mut actions, waits);
}

#[test]
fn a_worker_that_got_ready_in_between_gives_the_others_new_tries() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let mut worker = lab.equip(job, 1)[0];
    for round in 0..9 {
        if round % 3 == 2 {
            lab.ready(worker);
            lab.pass(lease(), &[agent(1, 1)], &[job]);
        }
        worker = started(&lab.ended(worker))[0];
    }
}

/// Has the worker get ready and crash; gives the next one, and after how many seconds it is started.
fn crash(lab: &mut Lab, job: JobId, worker: WorkerId) -> (WorkerId, u64) {
    lab.ready(worker);
    let mut actions = lab.ended(worker);
    let mut waited = 0;
    while started(&actions).is_empty() {
        actions = lab.pass(1, &[agent(1, 1)], &[job]);
        waited += 1;
        assert!(waited <= 60, "it is never started");
    }
    (started(&actions)[0], waited)
}

#[test]
fn a_worker_that_crashes_again_and_again_is_started_later_and_later_until_it_has_lived_for_a_while() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let mut worker = lab.equip(job, 1)[0];
    for expected in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
        let (next, waited) = crash(&mut lab, job, worker);
        assert_eq!(waited, expected);
        worker = next;
    }
    lab.ready(worker);
    lab.pass(lease(), &[agent(1, 1)], &[job]);
    worker = started(&lab.ended(worker))[0];
    assert_eq!(crash(&mut lab, job, worker).1, 0);
}

#[test]
fn who_waits_for_workers_that_crash_is_told_so_and_gets_the_next_one() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let worker = lab.equip(job, 1)[0];
    let (worker, _) = crash(&mut lab, job, worker);
    let waits = lab.place(job, cpus(1.0)).waits();
    let mut actions = lab.ready(worker);
    let actor = take_placed(&mut actions, waits);
    lab.ended(worker);
    lab.is_dead(actor, "exit code 1");
    let waits = lab.place(job, cpus(1.0)).waits();
    let row = "its workers crash at their start on node 0000000000000001, 2 in a row, the last: exit code 1";
    let none = "no node runs workers of the job yet";
    assert_eq!(lab.reasons(), [format!("{none}; {row}; the next is started in 1 s")]);
    // A driver that comes back says again that the node is equipped.
    assert_eq!(lab.equip(job, 1), []);
    let worker = started(&lab.pass(1, &[agent(1, 1)], &[job]))[0];
    let starts = "workers of its job are being started on node 0000000000000001";
    assert_eq!(lab.reasons(), [format!("{starts}; {row}")]);
    let mut actions = lab.ready(worker);
    take_placed(&mut actions, waits);
    // Once it has lived for a while there is nothing to tell any more.
    lab.pass(lease(), &[agent(1, 1)], &[job]);
    lab.place(job, cpus(4.0)).waits();
    assert_eq!(lab.reasons(), ["it wants cpu 4, and the most that one node has free is cpu 3"]);
}

#[test]
fn nothing_is_started_for_a_job_that_is_over_or_a_node_that_is_gone() {
    for over in [true, false] {
        let mut lab = Lab::new();
        lab.join(node_facts(1, 4.0, 1));
        let job = lab.start_job();
        let worker = lab.equip(job, 1)[0];
        let (worker, _) = crash(&mut lab, job, worker);
        lab.ready(worker);
        lab.ended(worker);
        match over {
            true => drop(lab.end_job(job)),
            false => drop(lab.handle(Event::NodeLeft { node: agent(1, 1), cause: "it left".to_owned() })),
        }
        assert_eq!(started(&lab.pass(3, &[agent(1, 1)], &[job])), []);
    }
}

#[test]
fn a_worker_that_gets_ready_after_it_was_given_up_is_stopped() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 1));
    let job = lab.start_job();
    let worker = lab.equip(job, 1)[0];
    assert_eq!(stopped(&lab.end_job(job)), [worker]);
    assert_eq!(lab.ready(worker), [Action::StopWorker { node: NodeId(1), worker }]);
    assert_eq!(lab.ended(worker), []);
}

#[test]
fn the_share_of_a_worker_that_does_not_start_goes_to_the_others() {
    let mut lab = Lab::new();
    lab.join(node_facts(1, 4.0, 2));
    let job = lab.start_job();
    let workers = lab.equip(job, 1);
    let waiting = [(); 2].map(|()| lab.place(job, plain()).waits());
    let mut actions = lab.ready(workers[0]);
    take_placed(&mut actions, waiting[0]);
    let mut actions = lab.ended(workers[1]);
    take_placed(&mut actions, waiting[1]);
}

#[test]
fn the_end_of_a_worker_is_known_by_its_hosts() {
    let (mut lab, job) = Lab::with_nodes(2);
    let (_, worker) = lab.spawn(job, on(1, plain()));
    let WorkerAddress { actors, tasks, .. } = member(worker);
    assert_eq!([lab.state.host_exit_cause(actors), lab.state.host_exit_cause(tasks)], [None, None]);
    lab.ended(worker);
    let end = Some("worker 7 on node 0000000000000001: exit code 1".to_owned());
    assert_eq!([lab.state.host_exit_cause(actors), lab.state.host_exit_cause(tasks)], [end.clone(), end]);
    // Nodes that are silent take their workers along.
    let (_, other) = lab.spawn(job, on(2, plain()));
    assert_eq!(lab.state.host_exit_cause(member(other).actors), None);
    lab.pass(lease() + 1, &[agent(1, 1)], &[job]);
    let end = lab.state.host_exit_cause(member(other).actors).unwrap();
    assert!(end.contains("node lost: no heartbeat for 13 s"), "{end}");
}
